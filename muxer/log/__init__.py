"""The log file, its lines, and what a terminal shows."""
