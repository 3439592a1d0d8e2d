"""``python hold_files.py FILE ...``: opens files which no other program can then open, replace or delete.

Prints "held" when it has all of them, and holds them until its standard input ends.
"""

import ctypes
import sys

assert sys.platform == "win32"

GENERIC_READ, SHARE_NOTHING, OPEN_EXISTING = 0x80000000, 0, 3


def main() -> None:
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.CreateFileW.restype = ctypes.c_void_p
    for path in sys.argv[1:]:
        handle = kernel32.CreateFileW(path, GENERIC_READ, SHARE_NOTHING, None, OPEN_EXISTING, 0, None)
        if handle == ctypes.c_void_p(-1).value:
            raise ctypes.WinError(ctypes.get_last_error())
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
