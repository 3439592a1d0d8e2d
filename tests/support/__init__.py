"""What several tests share: the muxer as a process, Apache, and the checks of a muxed file."""
