"""Claim a job, run it, record what became of it."""
