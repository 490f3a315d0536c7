"""Constancy: a fixed phantom goes through the whole chain, and its figures are held against those of a first run."""
