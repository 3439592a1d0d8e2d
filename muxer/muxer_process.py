"""The entry point that the deployment guide and LCA use: ``python muxer_process.py --config-file=muxer.cfg``.

Python puts the folder of a script first on its search path; there our modules would shadow those of others. So it is
taken out again, and the folder above it put in, before anything of ours is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE)]

from muxer.app.cli import run_muxer  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_muxer(sys.argv[1:]))
