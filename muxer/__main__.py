"""``python -m muxer``: the commands beside the daemon."""

import sys

from muxer.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
