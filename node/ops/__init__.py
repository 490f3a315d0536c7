"""What keeps the processes going: ticks, supervision, process locks, logging."""
