"""One file per training objective (networks, terms, optimiser steps, presets), and the parts that they are made of."""
