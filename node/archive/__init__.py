"""`archive run`: a list of series is translated on a Ray cluster, with one row of outcome for each, and can be resumed."""
