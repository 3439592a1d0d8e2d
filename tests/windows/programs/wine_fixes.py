"""Runs at each start of the Windows Python: where Wine differs from Windows.

The C library of Wine leaves errno at 0 when another process holds the byte that ``_locking`` locks; that of Windows sets
EACCES.
"""

import errno
import sys

assert sys.platform == "win32"
import msvcrt  # noqa: E402

_locking = msvcrt.locking


def _lock_bytes(descriptor: int, mode: int, length: int) -> None:
    try:
        _locking(descriptor, mode, length)
    except OSError as error:
        if error.errno:
            raise
        raise PermissionError(errno.EACCES, "Permission denied") from None


msvcrt.locking = _lock_bytes
