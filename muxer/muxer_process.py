"""The entry point that the deployment guide and LCA use: ``python muxer_process.py --config-file=muxer.cfg``.

Python searches a script's folder first; there our modules would shadow others. So the folder above replaces it.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE)]

from muxer.system.packages import report_import_error  # noqa: E402

try:
    from muxer.app.cli import run_muxer
except ImportError as error:
    sys.exit(report_import_error(error))

if __name__ == "__main__":
    sys.exit(run_muxer(sys.argv[1:]))
