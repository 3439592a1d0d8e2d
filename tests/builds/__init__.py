"""Other builds of ffmpeg than the installed one, for the tests."""
