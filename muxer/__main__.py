"""``python -m muxer``: the commands beside the daemon."""

import sys

from muxer.app.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
