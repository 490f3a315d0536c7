"""`python -m node.cli` is `syncect`."""

from node.cli import main

main()
