"""``python -m lab`` runs the lab; ``python -m lab demo`` runs the muxer on it."""

from __future__ import annotations

import io
import sys

from lab import demo, serve

if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # Windows redirects text in its code page.
    arguments = sys.argv[1:]
    sys.exit(demo.main(arguments[1:]) if arguments[:1] == ["demo"] else serve.main(arguments))
