"""Windows: a Job Object groups a program and its children; when this process, its only owner, dies, they are killed."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

_KILL_ON_JOB_CLOSE = 0x2000
_EXTENDED_LIMITS = 9


class _Limits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION of the Windows API."""

    _fields_ = (
        ("times", ctypes.c_int64 * 2),
        ("flags", ctypes.c_uint32),
        ("working_set", ctypes.c_size_t * 2),
        ("processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("classes", ctypes.c_uint32 * 2),
        ("io", ctypes.c_uint64 * 6),
        ("memory", ctypes.c_size_t * 4),
    )


class WindowsJob:
    """The job of one program."""

    def __init__(self, process_handle: int) -> None:
        """Assign a process that was just started to a new job, with its future children. Raises OSError on failure."""
        self._lock = threading.Lock()
        self._kernel32 = _load_kernel32()
        self._handle = self._kernel32.CreateJobObjectW(None, None)
        limits = _Limits(flags=_KILL_ON_JOB_CLOSE)
        done = (
            self._handle
            and self._kernel32.SetInformationJobObject(
                self._handle, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits)
            )
            and self._kernel32.AssignProcessToJobObject(self._handle, process_handle)
        )
        if not done:
            error = OSError(f"no Job Object for a program (Windows error {ctypes.get_last_error()})")  # type: ignore[attr-defined,unused-ignore]
            self.close()
            raise error

    def terminate_programs(self) -> None:
        """Kill the program and its children."""
        with self._lock:
            if self._handle:
                self._kernel32.TerminateJobObject(self._handle, 1)

    def close(self) -> None:
        """Kill the remaining children of the program, and close the job."""
        with self._lock:
            if self._handle:
                self._kernel32.CloseHandle(self._handle)
                self._handle = None


def _load_kernel32() -> Any:
    """Return the library with the types of its functions: a handle is as wide as a pointer."""
    library = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    handle, number = ctypes.c_void_p, ctypes.c_uint32
    types = {
        "CreateJobObjectW": (handle, (ctypes.c_void_p, ctypes.c_wchar_p)),
        "SetInformationJobObject": (ctypes.c_int, (handle, ctypes.c_int, ctypes.c_void_p, number)),
        "AssignProcessToJobObject": (ctypes.c_int, (handle, handle)),
        "TerminateJobObject": (ctypes.c_int, (handle, number)),
        "CloseHandle": (ctypes.c_int, (handle,)),
    }
    for name, (result, arguments) in types.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
