"""A small GIR installation on loopback ports: RWS, RCS and WebDAV with generated media.

It serves the demonstration, the tests, and an administrator who wants to try options without touching production.
It is written from docs/gir-api.md alone and shares no code with the client, so that each is a check on the other.
"""
