"""The commands of an administrator, beside the muxer itself: one module for each."""
