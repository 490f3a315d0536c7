"""The status page: what became of every series, and the review of a result with its images."""
