"""``python -m muxer``: the commands of an administrator."""

import sys

from muxer.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
