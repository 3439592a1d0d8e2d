"""Starts and ends the processes: assembles the parts, runs the daemon and its life cycle."""
