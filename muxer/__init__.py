"""Recording Muxer: joins the call and the screen recordings of Genesys Interaction Recording into one playable file."""

import sys

__version__ = "0.2.0"

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python would fail in the middle of an import
    sys.exit(f"The Recording Muxer needs Python 3.11 or later; {sys.executable} is {sys.version.split()[0]}")
