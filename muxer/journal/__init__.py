"""What became of each target, in memory and on disk, and when a failed one is retried."""
