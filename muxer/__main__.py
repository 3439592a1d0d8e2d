"""``python -m muxer``: the commands of an administrator."""

import sys

from muxer.system.packages import report_import_error

try:
    from muxer.commands import main
except ImportError as error:
    sys.exit(report_import_error(error))

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
