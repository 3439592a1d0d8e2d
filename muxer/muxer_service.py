"""The entry point of the service of Windows: ``python muxer_service.py NAME PACKAGES --config-file=…``.

The service manager starts the Python of the system: that of a venv would start a second process, unknown to the manager.
So the packages of the venv, if PACKAGES is not empty, are added here.
"""

from __future__ import annotations

import site
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE)]

if __name__ == "__main__":
    name, packages, *arguments = sys.argv[1:]
    if packages:
        site.addsitedir(packages)
    from muxer.app.windows_service import run_windows_service

    run_windows_service(name, arguments)
