"""``python send_control.py PID c|break``: sends Ctrl-C or Ctrl-Break to one process.

Windows starts a thread in the process, which calls the handlers of its console. There is no console here, so this program
starts that thread. For Ctrl-C it runs CtrlRoutine, as on Windows. The C library of Wine does not turn Ctrl-Break into
SIGBREAK, so for that it raises the signal.
"""

import ctypes
import sys

assert sys.platform == "win32"
CTRL_C_EVENT, SIGBREAK = 0, 21
PROCESS_ALL_ACCESS = 0x1FFFFF


def main() -> None:
    process_id, key = int(sys.argv[1]), sys.argv[2]
    kernel32, pointer = ctypes.WinDLL("kernel32", use_last_error=True), ctypes.c_void_p
    kernel32.OpenProcess.restype = kernel32.CreateRemoteThread.restype = pointer
    kernel32.CreateRemoteThread.argtypes = (pointer, pointer, ctypes.c_size_t, pointer, pointer, ctypes.c_uint32, pointer)
    if key == "c":
        routine, argument = ctypes.WinDLL("kernelbase").CtrlRoutine, CTRL_C_EVENT
    else:
        routine, argument = getattr(ctypes.CDLL("ucrtbase"), "raise"), SIGBREAK
    process = kernel32.OpenProcess(PROCESS_ALL_ACCESS, 0, process_id)
    if not process or not kernel32.CreateRemoteThread(process, None, 0, ctypes.cast(routine, pointer), argument, 0, None):
        raise ctypes.WinError(ctypes.get_last_error())


if __name__ == "__main__":
    main()
