"""Helpers shared by several tests: processes, servers, media, and checks of muxed files."""
