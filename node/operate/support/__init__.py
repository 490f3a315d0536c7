"""The support bundle: what a stranger needs to find a fault of a node, and nothing of any patient."""
