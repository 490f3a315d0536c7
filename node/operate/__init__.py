"""What a person sees of the node and decides about it, in the words that the command line and the page share."""
