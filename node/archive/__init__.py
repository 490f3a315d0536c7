"""`archive run`: a list of series is translated on a Ray cluster, with a row of outcome for each; it can be resumed."""
