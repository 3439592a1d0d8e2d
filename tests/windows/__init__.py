"""The muxer on Windows: CPython, ffmpeg and the packages of the muxer for Windows, run by Wine."""
