"""A simulated Windows for the modules of the muxer: ``python windows.py SCRIPT [ARGUMENT…]`` runs a script in it.

The standard library, third-party packages and the file system are unchanged. The muxer's modules see Windows in ``sys``,
``os``, ``signal`` and ``ctypes``, modules for POSIX only do not exist, and small fakes replace ``msvcrt``, crypt32.dll and
kernel32.dll. SIGUSR1 is SIGBREAK.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import importlib.abc
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
POSIX_MODULES = {
    *("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "posix", "spwd", "crypt", "nis", "readline"),
    *("_posixsubprocess", "_posixshmem"),
}
# Prefixes of the names in os that Python does not have on Windows.
POSIX_OF_OS = (
    *("getuid", "geteuid", "getgid", "getegid", "getgroups", "getpgid", "getpgrp", "getpriority", "getresuid"),
    *("getresgid", "getsid", "getloadavg", "set", "fork", "kill", "chown", "lchown", "fchown", "fchmod", "fchdir"),
    *("chroot", "lockf", "mkfifo", "mknod", "nice", "uname", "wait", "W", "sched_", "posix_", "statvfs", "fstatvfs"),
    *("pread", "pwrite", "readv", "writev", "sendfile", "sync", "fdatasync", "sysconf", "confstr", "ttyname", "openpty"),
    *("login_tty", "initgroups", "ctermid", "tcgetpgrp", "tcsetpgrp", "memfd_", "eventfd", "pidfd_", "splice"),
    *("O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "O_SYNC", "O_DSYNC", "O_NOCTTY", "getrandom"),
    *("register_at_fork", "major", "minor", "makedev", "pathconf"),
)
# Modules that the muxer imports lazily, and files that are not importable modules.
LATE_MODULES = ("boto3.session", "boto3.s3.transfer", "botocore.parsers", "cryptography.hazmat.primitives.ciphers.aead")
SCRIPT_MODULES = ("__main__", "muxer_process", "muxer_service")
WINDOWS_OS_NAMES = ("kill", "waitpid", "waitstatus_to_exitcode", "W_OK")
SIGNALS_OF_WINDOWS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}


class LibraryFunction:
    """A function of a library that accepts the type attributes of ctypes."""

    def __init__(self, body: Any) -> None:
        self._body, self.restype, self.argtypes = body, None, ()

    def __call__(self, *arguments: Any) -> Any:
        return self._body(*arguments)


class Kernel32:
    """Job Objects, simulated by process groups: whatever ends the job ends the group."""

    KILL_ON_JOB_CLOSE = 0x2000

    def __init__(self) -> None:
        self.jobs: dict[int, list[int]] = {}
        self.flags: dict[int, int] = {}
        for name in ("CreateJobObjectW", "SetInformationJobObject", "AssignProcessToJobObject", "TerminateJobObject"):
            setattr(self, name, LibraryFunction(getattr(self, f"_{name}")))
        self.CloseHandle, self.LocalFree = LibraryFunction(self._CloseHandle), LibraryFunction(lambda _memory: None)

    def _CreateJobObjectW(self, _security: None, _name: None) -> int:
        handle = 1000 + len(self.flags)
        self.jobs[handle], self.flags[handle] = [], 0
        return handle

    def _SetInformationJobObject(self, handle: int, kind: int, limits: Any, size: int) -> int:
        """Read the flags at the offset that Windows uses in a 64-bit process."""
        if kind != 9 or size != 144:
            return 0
        self.flags[handle] = int.from_bytes(ctypes.string_at(ctypes.addressof(limits._obj), size)[16:20], "little")
        return 1

    def _AssignProcessToJobObject(self, handle: int, process: int) -> int:
        self.jobs[handle].append(process)
        return 1

    def _TerminateJobObject(self, handle: int, _code: int) -> int:
        for process in self.jobs[handle]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
        return 1

    def _CloseHandle(self, handle: int) -> int:
        if self.flags[handle] & self.KILL_ON_JOB_CLOSE:
            self._TerminateJobObject(handle, 1)
        del self.jobs[handle]
        return 1


class Crypt32:
    """DPAPI of a computer with a public secret."""

    def __init__(self) -> None:
        self._memory: list[Any] = []

    def CryptProtectData(self, given: Any, _text: None, entropy: Any, _r: None, _p: None, _flags: int, result: Any) -> int:
        return self._write_blob(result, self._entropy_seal(entropy) + self._read_blob(given)[::-1])

    def CryptUnprotectData(self, given: Any, _text: None, entropy: Any, _r: None, _p: None, _flags: int, result: Any) -> int:
        seal, data = self._read_blob(given)[:32], self._read_blob(given)[32:]
        return self._write_blob(result, data[::-1]) if seal == self._entropy_seal(entropy) else 0

    def _entropy_seal(self, entropy: Any) -> bytes:
        return hashlib.sha256(self._read_blob(entropy)).digest()

    @staticmethod
    def _read_blob(pointer: Any) -> bytes:
        return ctypes.string_at(pointer._obj.data, pointer._obj.size)

    def _write_blob(self, pointer: Any, data: bytes) -> int:
        self._memory.append(ctypes.create_string_buffer(data, len(data)))
        pointer._obj.size, pointer._obj.data = len(data), self._memory[-1]
        return 1


class _HiddenModules(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname in POSIX_MODULES:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def every_module() -> list[str]:
    """Return the names of all modules of the muxer and the lab."""
    import lab
    import muxer

    packages = {"muxer": muxer.__path__, "lab": lab.__path__}
    found = [module.name for name, path in packages.items() for module in pkgutil.walk_packages(path, f"{name}.")]
    return [*packages, *found]


def become_windows() -> None:
    """Load all dependencies unchanged, unload the muxer's modules, and simulate Windows for later imports."""
    for name in [*every_module(), "encryptPassword", *LATE_MODULES]:
        if not name.endswith(SCRIPT_MODULES):
            importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("muxer", "lab", "encryptPassword")]:
        del sys.modules[name]
    msvcrt = _fake_msvcrt()
    for name in POSIX_MODULES & sys.modules.keys():
        del sys.modules[name]
    sys.meta_path.insert(0, _HiddenModules())
    sys.modules["msvcrt"] = msvcrt
    subprocess.Popen._handle = property(lambda process: process.pid)  # type: ignore[attr-defined]
    libraries = {"kernel32": Kernel32(), "crypt32": Crypt32()}
    ctypes.WinDLL = lambda name, **_: libraries[name]  # type: ignore[attr-defined]
    ctypes.get_last_error = lambda: 0  # type: ignore[attr-defined]
    sys.modules["signal"] = _copy_module(signal, lambda name: not name.startswith("SIG") or name in SIGNALS_OF_WINDOWS)
    sys.modules["signal"].SIGBREAK = signal.SIGUSR1  # type: ignore[attr-defined]
    sys.modules["os"] = _copy_module(os, lambda name: name in WINDOWS_OS_NAMES or not name.startswith(POSIX_OF_OS))
    sys.modules["os"].name = "nt"  # type: ignore[attr-defined]
    sys.modules["sys"] = _copy_module(sys, lambda _: True)
    sys.modules["sys"].platform = "win32"  # type: ignore[attr-defined]


def _copy_module(module: types.ModuleType, wanted: Any) -> types.ModuleType:
    fake_module = types.ModuleType(module.__name__)
    vars(fake_module).update({name: value for name, value in vars(module).items() if wanted(name)})
    return fake_module


def _fake_msvcrt() -> types.ModuleType:
    import fcntl

    fake_module: Any = types.ModuleType("msvcrt")
    fake_module.LK_NBLCK = 2
    fake_module.locking = lambda descriptor, _mode, length: fcntl.lockf(
        descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, length, 0, 1
    )
    return fake_module


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    sys.argv = sys.argv[1:]
    become_windows()
    runpy.run_path(sys.argv[0], run_name="__main__")
