"""How the node holds as it grows."""
