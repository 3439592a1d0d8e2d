"""The keystore: passwords for options that are empty in muxer.cfg, encrypted in a file next to it.

The guide has one on Windows only, by DPAPI. Elsewhere (our addition) AES-GCM, with a systemd credential or a private key
file.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import functools
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from muxer.errors import ConfigError, Problem
from muxer.system import files
from muxer.system.file_lock import LockHeld, acquire_lock

KEYSTORE_FILE = "muxer.keystore"
KEY_FILE = "muxer.keystore.key"
LOCK_FILE = "muxer.keystore.lock"
CREDENTIAL_NAME = "recording-muxer-key"
# Another encryptPassword.py holds the lock while it writes, which is short.
LOCK_TIMEOUT_SECONDS, _LOCK_PAUSE_SECONDS = 10.0, 0.05

_FORMAT, _VERSION = "recording-muxer keystore", 1
_KEY_BYTES, _NONCE_BYTES = 32, 12
_WINDOWS = sys.platform == "win32"
_UI_FORBIDDEN, _LOCAL_MACHINE = 0x1, 0x4
_FOREIGN_RIGHTS = stat.S_IRWXG | stat.S_IRWXO
# systemd lets the service's account read a credential by an ACL, which shows as the right of the group to read.
_FOREIGN_CREDENTIAL_RIGHTS = _FOREIGN_RIGHTS & ~stat.S_IRGRP
_RESTORE_ADVICE = f"restore it from a backup, or move {KEYSTORE_FILE} and {KEY_FILE} away and run encryptPassword.py again"


class _Protection(NamedTuple):
    """A way to encrypt; labels are authenticated. `unseal` raises ValueError for data of another key or label."""

    key: str
    seal: Callable[[bytes, bytes], bytes]
    unseal: Callable[[bytes, bytes], bytes]


def open_keystore(folder: Path) -> Mapping[tuple[str, str], str]:
    """Return the values of the keystore in `folder` by (section, option); empty when there is none.

    Raises ConfigError when it or its key is unusable, or open to other accounts (our decision: the muxer does not start).
    """
    path = folder / KEYSTORE_FILE
    data = _read_private(path)
    sealed = {} if data is None else _parse_keystore(path, data)
    if not sealed:
        return {}
    protection = _open_protection(folder)
    values = {}
    for name, secret in sealed.items():
        section, _, option = name.partition(".")
        try:
            values[section, option] = protection.unseal(_authenticated_label(name), secret).decode()
        except ValueError:
            what = f"[{section}] {option} cannot be decrypted with {protection.key}, or was changed"
            raise _keystore_error(path, f"{what}; {_RESTORE_ADVICE}") from None
    return values


@contextlib.contextmanager
def locked_keystore(folder: Path) -> Iterator[None]:
    """Keep other processes from changing the keystore in `folder`, from its reading to its writing. Raises ConfigError.

    The lock file is removed afterwards: otherwise it would belong to this account when the keystore is given to another.
    """
    path = folder / LOCK_FILE
    with _acquire_lock(folder, path):
        try:
            yield
        finally:
            # Windows does not remove an open file. There, the rights of the folder hold for the lock file as well.
            if not _WINDOWS:
                with contextlib.suppress(OSError):
                    path.unlink()


def _acquire_lock(folder: Path, path: Path) -> IO[str]:
    """Return the lock file, locked. Waits while another process holds it."""
    begin = time.monotonic()
    while True:
        try:
            lock = acquire_lock(path, folder / KEYSTORE_FILE, str(path))
        except LockHeld as error:
            if time.monotonic() - begin > LOCK_TIMEOUT_SECONDS:
                what = f"another encryptPassword.py ({error.holder}) is writing the keystore; try again when it has ended"
                raise _keystore_error(path, f"{what}; nothing was changed") from error
            time.sleep(_LOCK_PAUSE_SECONDS)
        except OSError as error:
            raise _keystore_error(path, f"cannot be locked ({error.strerror})") from error
        else:
            if _WINDOWS or _is_file_at(lock, path):
                return lock
            lock.close()


def _is_file_at(file: IO[str], path: Path) -> bool:
    """Whether `file` is still the one at `path`, which its last holder may have removed."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def save_keystore(folder: Path, values: Mapping[tuple[str, str], str]) -> None:
    """Replace the keystore, and create a missing key, within :func:`locked_keystore`.

    Raises ConfigError; the keystore is then unchanged.
    """
    path = folder / KEYSTORE_FILE
    protection = _open_protection(folder, make_key=True)
    secrets = {}
    for (section, option), value in values.items():
        name = f"{section}.{option}"
        try:
            secrets[name] = base64.b64encode(protection.seal(_authenticated_label(name), value.encode())).decode()
        except ValueError:
            raise _keystore_error(path, f"[{section}] {option} cannot be encrypted; the keystore is unchanged") from None
    content = {"format": _FORMAT, "version": _VERSION, "protection": _protection_kind(), "secrets": secrets}
    _write_private(path, json.dumps(content, indent=2).encode() + b"\n")


def _keystore_error(path: Path, what: str) -> ConfigError:
    return ConfigError([Problem(str(path), what)])


def _protection_kind() -> str:
    return "dpapi" if _WINDOWS else "aes-256-gcm"


def _authenticated_label(name: str) -> bytes:
    """Return the label that binds a value to its option and to the format of the file."""
    return f"{_FORMAT} {_VERSION} {name}".encode()


def _parse_keystore(path: Path, data: bytes) -> dict[str, bytes]:
    try:
        content = json.loads(data)
        if content["format"] != _FORMAT:
            raise ValueError
        _check_origin(path, content["version"], content["protection"])
        return {name: base64.b64decode(value, validate=True) for name, value in content["secrets"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _keystore_error(path, f"is not a keystore of the muxer, or is corrupt; {_RESTORE_ADVICE}") from None


def _check_origin(path: Path, version: Any, kind: Any) -> None:
    if version != _VERSION:
        raise _keystore_error(path, f"has a version that this muxer does not know; update the muxer, {_RESTORE_ADVICE}")
    if kind != _protection_kind():
        raise _keystore_error(path, f"was created on another kind of system; {_RESTORE_ADVICE}")


def _read_private(path: Path, others: int = _FOREIGN_RIGHTS) -> bytes | None:
    """Return the content of a file, None when it does not exist. Raises ConfigError when other accounts have access."""
    try:
        with path.open("rb") as file:
            if not _WINDOWS:
                _check_private(path, os.fstat(file.fileno()), others)
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        what = f"cannot be read ({error.strerror}); it must belong to the account that the muxer runs as"
        raise _keystore_error(path, what) from error


def _check_private(path: Path, status: os.stat_result, others: int) -> None:
    if status.st_uid not in (os.geteuid(), 0):  # type: ignore[attr-defined,unused-ignore]
        what = f"belongs to another account (number {status.st_uid})"
        raise _keystore_error(path, f"{what}; run this with that account, or give the file to this one with chown")
    if status.st_mode & others:
        what = f"is open to other accounts (mode {stat.S_IMODE(status.st_mode):04o})"
        raise _keystore_error(path, f"{what}; restrict it with: chmod 600 {path}")


def _write_private(path: Path, data: bytes) -> None:
    """Write a file atomically; mkstemp creates it readable by this account only."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            files.replace_file(Path(name), path)
        finally:
            files.remove_file(Path(name))
        if not _WINDOWS:
            _sync_folder(path.parent)
    except OSError as error:
        raise _keystore_error(path, f"cannot be written ({error.strerror})") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_protection(folder: Path, make_key: bool = False) -> _Protection:
    return _dpapi_protection() if _WINDOWS else _aes_gcm_protection(*_load_key(folder, make_key))


def _load_key(folder: Path, make: bool) -> tuple[Path, bytes]:
    """Return the path of the key and the key. The credential of the service takes precedence over the key file."""
    key_file = folder / KEY_FILE
    candidates = [(key_file, _FOREIGN_RIGHTS)]
    if credentials := os.environ.get("CREDENTIALS_DIRECTORY"):
        candidates.insert(0, (Path(credentials) / CREDENTIAL_NAME, _FOREIGN_CREDENTIAL_RIGHTS))
    for path, others in candidates:
        key = _read_private(path, others)
        if key is not None:
            return path, _check_key(path, key)
    if not make:
        advice = f"if systemd has the key, run this with systemd-run (docs/passwords.md); else {_RESTORE_ADVICE}"
        raise _keystore_error(key_file, f"is missing, and so is the credential {CREDENTIAL_NAME}; {advice}")
    key = os.urandom(_KEY_BYTES)
    _write_private(key_file, key)
    return key_file, key


def _check_key(path: Path, key: bytes) -> bytes:
    if len(key) != _KEY_BYTES:
        raise _keystore_error(path, f"is not a key of {_KEY_BYTES} bytes; {_RESTORE_ADVICE}")
    return key


def _aes_gcm_protection(path: Path, key: bytes) -> _Protection:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    cipher = AESGCM(key)

    def seal(label: bytes, data: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, data, label)

    def unseal(label: bytes, data: bytes) -> bytes:
        try:
            return cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], label)
        except InvalidTag:
            raise ValueError("not sealed with this key and label") from None

    return _Protection(f"the key {path}", seal, unseal)


class _Blob(ctypes.Structure):
    """DATA_BLOB of the Windows API."""

    _fields_ = (("size", ctypes.c_uint32), ("data", ctypes.POINTER(ctypes.c_char)))


def _dpapi_protection() -> _Protection:
    seal = functools.partial(_call_dpapi, "CryptProtectData", _UI_FORBIDDEN | _LOCAL_MACHINE)
    return _Protection("the key of this computer", seal, functools.partial(_call_dpapi, "CryptUnprotectData", _UI_FORBIDDEN))


def _call_dpapi(function: str, flags: int, label: bytes, data: bytes) -> bytes:
    """Call one of the two functions of DPAPI, which take the same arguments; the label is their "optional entropy"."""
    crypt32, kernel32 = (ctypes.WinDLL(name) for name in ("crypt32", "kernel32"))  # type: ignore[attr-defined,unused-ignore]
    given, entropy = (_Blob(len(part), ctypes.create_string_buffer(part, len(part))) for part in (data, label))
    result = _Blob()
    done = getattr(crypt32, function)(
        ctypes.byref(given), None, ctypes.byref(entropy), None, None, flags, ctypes.byref(result)
    )
    if not done:
        raise ValueError(f"{function} failed")
    try:
        return ctypes.string_at(result.data, result.size)
    finally:
        kernel32.LocalFree(result.data)
