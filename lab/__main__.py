"""``python -m lab`` runs the lab; ``python -m lab demo`` runs the muxer on it."""

from __future__ import annotations

import sys

from lab import demo, serve

if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(demo.main(arguments[1:]) if arguments[:1] == ["demo"] else serve.main(arguments))
