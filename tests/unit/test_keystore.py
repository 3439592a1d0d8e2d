"""The keystore on disk: content, permissions, and everything that is refused."""

from __future__ import annotations

import base64
import ctypes
import json
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from muxer.config import keystore
from muxer.config.keystore import (
    CREDENTIAL_NAME,
    KEY_FILE,
    KEYSTORE_FILE,
    LOCK_FILE,
    locked_keystore,
    open_keystore,
    save_keystore,
)
from muxer.errors import ConfigError
from muxer.system.file_lock import acquire_lock

# The keystore of Windows is encrypted by DPAPI: tests/windows shows that.
pytestmark = pytest.mark.posix

HTCC, WEBDAV, S3 = ("htcc", "password"), ("webdav", "password"), ("s3", "secret_access_key")
SECRET = "50%(x)s \"quoted\" 'twice' ;#= [ü] пароль \U0001f511 "
VALUES = {HTCC: SECRET, WEBDAV: " leading", S3: "plain"}


@pytest.fixture(autouse=True)
def no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    save_keystore(tmp_path, VALUES)
    return tmp_path


def refusal_text(folder: Path, name: str = KEYSTORE_FILE) -> str:
    """Return the reason for the refusal of the keystore: one problem, with the file name and without secrets."""
    with pytest.raises(ConfigError) as caught:
        open_keystore(folder)
    (problem,) = caught.value.problems
    assert problem.where == str(folder / name)
    assert SECRET not in repr(problem)
    return problem.what


def edit_keystore(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / KEYSTORE_FILE).read_text())
    change(content)
    (folder / KEYSTORE_FILE).write_text(json.dumps(content))


def file_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- stored values -----------------------------------------------------------------------------------


def test_every_stored_value_is_read_back(stored: Path) -> None:
    assert open_keystore(stored) == VALUES


def test_without_a_keystore_nothing_is_read_or_created(tmp_path: Path) -> None:
    assert open_keystore(tmp_path) == {}
    assert open_keystore(tmp_path / "no such folder") == {}
    assert list(tmp_path.iterdir()) == []


def test_saving_replaces_everything_and_keeps_the_key(stored: Path) -> None:
    key = (stored / KEY_FILE).read_bytes()
    save_keystore(stored, {S3: "new"})
    assert open_keystore(stored) == {S3: "new"}
    assert (stored / KEY_FILE).read_bytes() == key


def test_two_changes_at_the_same_moment_follow_each_other(tmp_path: Path) -> None:
    other_done = threading.Event()

    def change_later() -> None:
        with locked_keystore(tmp_path):
            save_keystore(tmp_path, {**open_keystore(tmp_path), S3: "second"})
        other_done.set()

    thread = threading.Thread(target=change_later)
    with locked_keystore(tmp_path):
        thread.start()
        assert not other_done.wait(0.2)
        save_keystore(tmp_path, {("rcs", "password"): "first"})
    thread.join()
    assert open_keystore(tmp_path) == {("rcs", "password"): "first", S3: "second"}


def test_a_lock_that_is_never_released_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystore, "LOCK_TIMEOUT_SECONDS", 0.0)
    text = rf"muxer\.keystore\.lock: another encryptPassword\.py \(process {os.getpid()} on .*\) is writing .*; try again"
    with locked_keystore(tmp_path):
        with pytest.raises(ConfigError, match=text), locked_keystore(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).exists()
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_lock_file_that_its_last_holder_has_removed_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[IO[str]] = []

    def acquire_too_late(path: Path, *more: Any) -> IO[str]:
        lock = acquire_lock(path, *more)
        if not removed:
            path.unlink()
            removed.append(lock)
        return lock

    monkeypatch.setattr(keystore, "acquire_lock", acquire_too_late)
    monkeypatch.setattr(keystore, "LOCK_TIMEOUT_SECONDS", 0.0)
    with locked_keystore(tmp_path), pytest.raises(ConfigError, match="another"), locked_keystore(tmp_path):
        pass
    assert removed[0].closed


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_the_account_that_got_the_keystore_can_change_it() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with locked_keystore(folder):
            save_keystore(folder, VALUES)
        for path in (folder, folder / KEYSTORE_FILE, folder / KEY_FILE):
            os.chown(path, 4321, 4321)
        os.seteuid(4321)
        try:
            with locked_keystore(folder):
                save_keystore(folder, {**open_keystore(folder), S3: "new"})
            assert open_keystore(folder) == {**VALUES, S3: "new"}
        finally:
            os.seteuid(0)


def test_an_empty_keystore_needs_no_key(stored: Path) -> None:
    save_keystore(stored, {})
    (stored / KEY_FILE).unlink()
    assert open_keystore(stored) == {}


def test_values_are_never_stored_in_clear_and_each_encryption_differs(stored: Path) -> None:
    first = (stored / KEYSTORE_FILE).read_bytes()
    save_keystore(stored, VALUES)
    second = (stored / KEYSTORE_FILE).read_bytes()
    assert json.loads(first)["secrets"].items().isdisjoint(json.loads(second)["secrets"].items())
    for data in (first, second, (stored / KEY_FILE).read_bytes()):
        for value in VALUES.values():
            assert value.encode() not in data
            assert base64.b64encode(value.encode()) not in data


def test_the_keystore_writes_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        save_keystore(tmp_path, VALUES)
        open_keystore(tmp_path)
    assert caplog.text == ""


def test_aes_gcm_is_imported_only_when_it_is_needed() -> None:
    code = (
        "import sys, pathlib\n"
        "import muxer.config.keystore as keystore\n"
        "keystore.open_keystore(pathlib.Path('no such folder'))\n"
        "sys.exit('cryptography.hazmat.primitives.ciphers.aead' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, check=False).returncode == 0


# ---- writing -----------------------------------------------------------------------------------------


def test_other_accounts_can_never_read_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    real_fdopen = os.fdopen

    def watched_fdopen(descriptor: int, *arguments: Any, **more: Any) -> Any:
        seen.append((stat.S_IMODE(os.fstat(descriptor).st_mode), os.fstat(descriptor).st_size))
        return real_fdopen(descriptor, *arguments, **more)

    monkeypatch.setattr(os, "fdopen", watched_fdopen)
    before = os.umask(0)
    try:
        save_keystore(tmp_path, VALUES)
    finally:
        os.umask(before)
    assert seen == [(0o600, 0), (0o600, 0)]
    assert {path.name: file_mode(path) for path in tmp_path.iterdir()} == {KEYSTORE_FILE: 0o600, KEY_FILE: 0o600}


def test_files_are_replaced_as_a_whole_and_after_they_are_on_the_disk(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real_replace, real_fsync = Path.replace, os.fsync

    def record_fsync(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def record_replace(self: Path, target: Path) -> Path:
        steps.append(f"replace {target.name}")
        assert open_keystore(stored) == VALUES
        assert self.parent == target.parent
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    save_keystore(stored, {S3: "new"})
    assert steps == ["file", f"replace {KEYSTORE_FILE}", "folder"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_keystore_and_nothing_else(
    stored: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail_fsync(descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail_fsync)
    with pytest.raises((ConfigError, KeyboardInterrupt)) as caught:
        save_keystore(stored, {S3: "new"})
    if isinstance(error, OSError):
        assert str(caught.value) == f"{stored / KEYSTORE_FILE}: cannot be written (No space left on device)"
    assert open_keystore(stored) == VALUES
    assert {path.name for path in stored.iterdir()} == {KEYSTORE_FILE, KEY_FILE}


def test_a_folder_that_does_not_exist_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        save_keystore(tmp_path / "missing", VALUES)


def test_a_value_that_is_not_text_is_refused_without_showing_it(stored: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[rcs\] password cannot be encrypted") as caught:
        save_keystore(stored, {("rcs", "password"): "half \udce9"})
    assert "half" not in str(caught.value)
    assert open_keystore(stored) == VALUES


# ---- file permissions --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [KEYSTORE_FILE, KEY_FILE])
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_files_open_to_others_are_refused(stored: Path, name: str, bits: int) -> None:
    (stored / name).chmod(bits)
    what = refusal_text(stored, name)
    assert f"{bits:04o}" in what
    assert f"chmod 600 {stored / name}" in what


@pytest.mark.parametrize("name", [KEYSTORE_FILE, KEY_FILE])
def test_files_of_another_account_are_refused(stored: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        os.chown(stored / name, 4321, 4321)
    else:
        name = KEYSTORE_FILE
        monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert "belongs to another account" in refusal_text(stored, name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root has files of root")
def test_files_of_root_are_trusted(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    assert open_keystore(stored) == VALUES


def test_a_file_that_cannot_be_read_is_named(stored: Path) -> None:
    (stored / KEY_FILE).unlink()
    (stored / KEY_FILE).mkdir()
    assert "cannot be read (Is a directory)" in refusal_text(stored, KEY_FILE)


def test_a_key_open_to_others_is_not_used_to_store(stored: Path) -> None:
    (stored / KEY_FILE).chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        save_keystore(stored, {S3: "new"})


# ---- foreign and damaged files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff\xfe\x00", b"[htcc]\npassword = x\n", b"[]", b"7", b"null", b"{}", b'{"format": "something"}'),
        *(b'{"format": "recording-muxer keystore"}', b"[" * 100_000),
        b'{"format": "recording-muxer keystore", "version": 1, "protection": "aes-256-gcm", "secrets": []}',
        b'{"format": "recording-muxer keystore", "version": 1, "protection": "aes-256-gcm", "secrets": {"a.b": 1}}',
        b'{"format": "recording-muxer keystore", "version": 1, "protection": "aes-256-gcm", "secrets": {"a.b": "?"}}',
    ],
    ids=range(13),
)
def test_a_foreign_file_is_refused(stored: Path, data: bytes) -> None:
    (stored / KEYSTORE_FILE).write_bytes(data)
    what = refusal_text(stored)
    assert "is not a keystore of the muxer, or is corrupt" in what
    assert "run encryptPassword.py again" in what


@pytest.mark.parametrize("part", ["first half", "last bytes"])
def test_a_truncated_keystore_is_refused(stored: Path, part: str) -> None:
    data = (stored / KEYSTORE_FILE).read_bytes()
    (stored / KEYSTORE_FILE).write_bytes(data[: len(data) // 2] if part == "first half" else data[-20:])
    assert "corrupt" in refusal_text(stored)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_version_is_refused(stored: Path, version: object) -> None:
    edit_keystore(stored, lambda content: content.update(version=version))
    assert "version that this muxer does not know; update the muxer" in refusal_text(stored)


@pytest.mark.parametrize("at", [0, 12, -1])
def test_a_changed_value_is_refused(stored: Path, at: int) -> None:
    def flip_bit(content: dict[str, Any]) -> None:
        sealed = bytearray(base64.b64decode(content["secrets"]["htcc.password"]))
        sealed[at] ^= 1
        content["secrets"]["htcc.password"] = base64.b64encode(sealed).decode()

    edit_keystore(stored, flip_bit)
    what = refusal_text(stored)
    assert what.startswith(f"[htcc] password cannot be decrypted with the key {stored / KEY_FILE}, or was changed")
    assert "run encryptPassword.py again" in what


def test_a_value_cannot_take_the_place_of_another(stored: Path) -> None:
    edit_keystore(
        stored, lambda content: content["secrets"].update({"s3.secret_access_key": content["secrets"]["htcc.password"]})
    )
    assert "[s3] secret_access_key cannot be decrypted" in refusal_text(stored)


def test_the_version_is_authenticated(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystore, "_VERSION", 2)
    edit_keystore(stored, lambda content: content.update(version=2))
    assert "cannot be decrypted" in refusal_text(stored)


@pytest.mark.parametrize("sealed", ["", "AAAA", "AAAAAAAAAAAAAAAAAAAA"])
def test_a_value_that_is_too_short_is_refused(stored: Path, sealed: str) -> None:
    edit_keystore(stored, lambda content: content["secrets"].update({"htcc.password": sealed}))
    assert "cannot be decrypted" in refusal_text(stored)


def test_a_wrong_key_is_refused(stored: Path) -> None:
    (stored / KEY_FILE).write_bytes(os.urandom(32))
    assert f"cannot be decrypted with the key {stored / KEY_FILE}" in refusal_text(stored)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_malformed_key_is_refused(stored: Path, length: int) -> None:
    (stored / KEY_FILE).write_bytes(bytes(length))
    assert "is not a key of 32 bytes" in refusal_text(stored, KEY_FILE)


def test_a_missing_key_is_named(stored: Path) -> None:
    (stored / KEY_FILE).unlink()
    what = refusal_text(stored, KEY_FILE)
    assert what.startswith(f"is missing, and so is the credential {CREDENTIAL_NAME}")


# ---- the credential of a service ---------------------------------------------------------------------


@pytest.fixture
def credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a credential in a folder as systemd provides it for a service."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder / CREDENTIAL_NAME


@pytest.mark.parametrize("bits", [0o400, 0o440, 0o600])
def test_the_credential_takes_precedence_over_the_file(stored: Path, credential: Path, bits: int) -> None:
    shutil.copy(stored / KEY_FILE, credential)
    credential.chmod(bits)  # 0440 is what an access control list for the account looks like
    (stored / KEY_FILE).write_bytes(os.urandom(32))
    assert open_keystore(stored) == VALUES


def test_with_a_credential_no_key_is_written(tmp_path: Path, credential: Path) -> None:
    credential.write_bytes(os.urandom(32))
    credential.chmod(0o400)
    save_keystore(tmp_path, VALUES)
    assert not (tmp_path / KEY_FILE).exists()
    assert open_keystore(tmp_path) == VALUES


def test_without_the_credential_in_that_folder_the_file_is_used(stored: Path, credential: Path) -> None:
    assert not credential.exists()
    assert open_keystore(stored) == VALUES


@pytest.mark.parametrize("bits", [0o444, 0o460])
def test_a_credential_open_to_others_is_refused(stored: Path, credential: Path, bits: int) -> None:
    shutil.copy(stored / KEY_FILE, credential)
    credential.chmod(bits)
    with pytest.raises(ConfigError, match="is open to other accounts") as caught:
        open_keystore(stored)
    assert caught.value.problems[0].where == str(credential)


def test_a_wrong_credential_is_named(stored: Path, credential: Path) -> None:
    credential.write_bytes(os.urandom(32))
    credential.chmod(0o400)
    assert f"cannot be decrypted with the key {credential}" in refusal_text(stored)


# ---- Windows -----------------------------------------------------------------------------------------


class DpapiMachine:
    """Fake DPAPI of one computer: the functions of crypt32.dll and kernel32.dll as ctypes calls them."""

    def __init__(self) -> None:
        self.sealed: dict[bytes, tuple[bytes, bytes]] = {}
        self.flags: list[int] = []
        self.allocated: list[Any] = []
        self.freed: list[int] = []

    def CryptProtectData(self, given: Any, _text: None, entropy: Any, _r: None, _p: None, flags: int, result: Any) -> int:
        self.flags.append(flags)
        token = b"sealed %d" % len(self.sealed)
        self.sealed[token] = (self._read_blob(given), self._read_blob(entropy))
        return self._write_blob(result, token)

    def CryptUnprotectData(self, given: Any, _text: None, entropy: Any, _r: None, _p: None, flags: int, result: Any) -> int:
        self.flags.append(flags)
        clear, with_entropy = self.sealed.get(self._read_blob(given), (b"", b""))
        return self._write_blob(result, clear) if clear and with_entropy == self._read_blob(entropy) else 0

    def LocalFree(self, data: Any) -> None:
        self.freed.append(ctypes.addressof(data.contents))

    @staticmethod
    def _read_blob(pointer: Any) -> bytes:
        return ctypes.string_at(pointer._obj.data, pointer._obj.size)

    def _write_blob(self, pointer: Any, data: bytes) -> int:
        memory = ctypes.create_string_buffer(data, len(data))
        self.allocated.append(memory)
        pointer._obj.size, pointer._obj.data = len(data), memory
        return 1


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Callable[[], DpapiMachine]:
    """Return a function that moves the process to a new fake Windows computer."""

    def start_machine() -> DpapiMachine:
        machine = DpapiMachine()
        monkeypatch.setattr(keystore, "_WINDOWS", True)
        monkeypatch.setattr(ctypes, "WinDLL", lambda name: machine, raising=False)
        return machine

    return start_machine


def test_on_windows_dpapi_protects_for_the_machine(tmp_path: Path, windows: Callable[[], DpapiMachine]) -> None:
    machine = windows()
    save_keystore(tmp_path, VALUES)
    assert open_keystore(tmp_path) == VALUES
    assert machine.flags == [0x5] * 3 + [0x1] * 3  # CRYPTPROTECT_LOCAL_MACHINE | UI_FORBIDDEN; then UI_FORBIDDEN
    assert machine.freed == [ctypes.addressof(memory) for memory in machine.allocated]
    assert {path.name for path in tmp_path.iterdir()} == {KEYSTORE_FILE}


def test_on_windows_modes_mean_nothing(tmp_path: Path, windows: Callable[[], DpapiMachine]) -> None:
    windows()
    save_keystore(tmp_path, VALUES)
    (tmp_path / KEYSTORE_FILE).chmod(0o666)
    assert open_keystore(tmp_path) == VALUES


def test_on_windows_a_value_cannot_take_the_place_of_another(tmp_path: Path, windows: Callable[[], DpapiMachine]) -> None:
    windows()
    save_keystore(tmp_path, VALUES)
    edit_keystore(tmp_path, lambda content: content["secrets"].update({"rcs.password": content["secrets"]["htcc.password"]}))
    assert "[rcs] password cannot be decrypted with the key of this computer" in refusal_text(tmp_path)


def test_on_another_windows_computer_it_is_refused(tmp_path: Path, windows: Callable[[], DpapiMachine]) -> None:
    windows()
    save_keystore(tmp_path, VALUES)
    windows()
    assert "cannot be decrypted with the key of this computer" in refusal_text(tmp_path)


def test_when_dpapi_refuses_nothing_is_changed(
    tmp_path: Path, windows: Callable[[], DpapiMachine], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows()
    save_keystore(tmp_path, VALUES)
    monkeypatch.setattr(DpapiMachine, "CryptProtectData", lambda *_: 0)
    with pytest.raises(ConfigError, match=r"\[s3\] secret_access_key cannot be encrypted"):
        save_keystore(tmp_path, {S3: "new"})
    assert open_keystore(tmp_path) == VALUES


def test_a_keystore_of_another_kind_of_system_is_refused(stored: Path, windows: Callable[[], DpapiMachine]) -> None:
    windows()
    assert "was created on another kind of system" in refusal_text(stored)
