"""A small GIR installation on loopback ports: RWS, RCS and WebDAV with generated media. `python -m lab` runs it.

It serves the demonstration, the tests, and administrators who want to try options without touching production. It is written
from docs/gir-api.md alone and shares no code with the client, so that each is a check on the other.
"""
