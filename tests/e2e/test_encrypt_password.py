"""encryptPassword.py as an administrator runs it: on a terminal, and from a script."""

from __future__ import annotations

import base64
import os
import pty
import re
import select
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from muxer.config.keystore import CREDENTIAL_NAME, KEY_FILE, KEYSTORE_FILE, open_keystore
from muxer.config.schema import all_options
from tests.support.daemon import PACKAGE, PYTHON
from tests.support.tiers import spread_variants

TIMEOUT_SECONDS = 30
HTCC, RCS, WEBDAV, S3 = ("htcc", "password"), ("rcs", "password"), ("webdav", "password"), ("s3", "secret_access_key")
MONITORING, FLEET = ("monitoring", "password"), ("fleet", "broker_url")
PASSWORDS = ("[htcc] password", "[rcs] password", "[webdav] password", "[s3] secret_access_key", "[monitoring] password")
PROMPTS = (*PASSWORDS, "[fleet] broker_url")
REPEAT_PROMPT = "repeat it: "
SECRET = '100% "se\'cret"; #ü= '
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"LC_ALL": "C.UTF-8"}
ENVIRONMENT.pop("CREDENTIALS_DIRECTORY", None)


@dataclass
class ProgramCopy:
    """A copy of the program: the script, and the folder in which it runs."""

    script: Path
    folder: Path

    def command_line(self, *arguments: str) -> list[str]:
        return [PYTHON, "-B", str(self.script), *arguments]

    def run_program(self, *arguments: str, stdin: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run it without a terminal."""
        done = subprocess.run(
            self.command_line(*arguments),
            cwd=self.folder,
            env={**ENVIRONMENT, **environment},
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            start_new_session=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def keystore_files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if path.name.startswith(("muxer.key", ".muxer"))}


class ProgramTerminal:
    """The program on a separate terminal, and the output of that terminal."""

    def __init__(self, site: ProgramCopy, *arguments: str) -> None:
        self.shown = self._seen = ""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(site.folder)
                os.execve(PYTHON, site.command_line(*arguments), ENVIRONMENT)
            finally:
                os._exit(127)

    def __enter__(self) -> ProgramTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.terminal)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def type_answer(self, prompt: str, text: str | bytes, end: str = "\n") -> None:
        """Wait for a prompt and type."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while prompt not in self.shown[len(self._seen) :]:
            assert self._read_output(deadline), f"no {prompt!r} after {self.shown!r}"
        self._seen = self.shown
        os.write(self.terminal, (text if isinstance(text, bytes) else text.encode()) + end.encode())

    def type_twice(self, prompt: str, text: str) -> None:
        self.type_answer(prompt, text)
        self.type_answer(REPEAT_PROMPT, text)

    def wait_for_exit(self) -> int:
        """Wait for the end and return the exit code."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self._read_output(deadline):
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read_output(self, deadline: float) -> bool:
        assert select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0], f"stuck at {self.shown!r}"
        try:
            data = os.read(self.terminal, 4096)
        except OSError:  # Linux reports an ended process like this
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


def copy_package(target: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns(".*", "*.log*", "*.cfg", "*.keystore*")))


@pytest.fixture(params=spread_variants(["source", "installed"], 2))
def site(request: pytest.FixtureRequest, tmp_path: Path) -> ProgramCopy:
    """Return both layouts: the script inside the package's folder, run there; and next to it, run there."""
    package = copy_package(tmp_path / "site" / "muxer")
    folder = package if request.param == "installed" else package.parent
    script = shutil.copy(PACKAGE.parent / "encryptPassword.py", folder)
    (folder / "muxer.cfg").touch()
    return ProgramCopy(Path(script), folder)


@pytest.fixture
def one(tmp_path: Path) -> ProgramCopy:
    """Return the script in its original location, run in a separate folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "muxer.cfg").touch()
    return ProgramCopy(PACKAGE.parent / "encryptPassword.py", folder)


@pytest.fixture
def stored(one: ProgramCopy) -> Iterator[ProgramCopy]:
    """Return a site whose keystore holds two passwords; they are never shown."""
    done = one.run_program("--stdin", stdin=f"htcc={SECRET}\ns3=s3 secret\n")
    assert done.returncode == 0, done.stderr
    yield one


def is_unchanged(site: ProgramCopy) -> bool:
    return open_keystore(site.folder) == {HTCC: SECRET, S3: "s3 secret"}


# ---- on a terminal -----------------------------------------------------------------------------------


def test_each_secret_is_prompted_twice_and_never_shown(site: ProgramCopy) -> None:
    values = {HTCC: SECRET, RCS: "пароль", WEBDAV: "%(x)s", S3: "'\"\\", MONITORING: "seen by none", FLEET: "amqp://h"}
    with ProgramTerminal(site) as terminal:
        for prompt, value in zip(PROMPTS, values.values(), strict=True):
            terminal.type_twice(prompt, value)
        assert terminal.wait_for_exit() == 0
    assert open_keystore(site.folder) == values
    assert f"Stored in {site.folder / KEYSTORE_FILE}: {', '.join(PROMPTS)}" in terminal.shown
    for value in values.values():
        assert value not in terminal.shown
        for path in (site.folder / KEYSTORE_FILE, site.folder / KEY_FILE):
            assert value.encode() not in path.read_bytes()
            assert base64.b64encode(value.encode()) not in path.read_bytes()
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in site.folder.glob("muxer.key*")} == {
        KEYSTORE_FILE: 0o600,
        KEY_FILE: 0o600,
    }


def test_every_secret_option_has_its_prompt() -> None:
    assert tuple(f"[{section}] {name}" for section, name, option in all_options() if option.secret) == PROMPTS


def test_package_modules_shadow_no_other_modules(tmp_path: Path) -> None:
    package = copy_package(tmp_path / "site" / "muxer")
    (package / "getpass.py").write_text("raise SystemExit('shadowed')\n")
    (package / "json.py").write_text("raise SystemExit('shadowed')\n")
    site = ProgramCopy(Path(shutil.copy(PACKAGE.parent / "encryptPassword.py", package)), package)
    (package / "muxer.cfg").touch()
    done = site.run_program("--list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_empty_input_keeps_stored_secret(stored: ProgramCopy) -> None:
    with ProgramTerminal(stored) as terminal:
        terminal.type_answer(PROMPTS[0], "")
        terminal.type_twice(PROMPTS[1], "new")
        terminal.type_answer(PROMPTS[2], "")
        for prompt in PROMPTS[3:]:
            terminal.type_answer(prompt, "")
        assert terminal.wait_for_exit() == 0
    assert open_keystore(stored.folder) == {HTCC: SECRET, S3: "s3 secret", RCS: "new"}
    assert f"Stored in {stored.folder / KEYSTORE_FILE}: [rcs] password\r\n" in terminal.shown
    assert "It holds now: [htcc] password, [rcs] password, [s3] secret_access_key\r\n" in terminal.shown
    assert "s3 secret" not in terminal.shown and "new" not in terminal.shown


def test_processes_that_store_at_the_same_moment_lose_nothing(one: ProgramCopy) -> None:
    values = {("htcc", "password"): "first-one", ("rcs", "password"): "second-one", ("webdav", "password"): "third-one"}
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda item: one.run_program("--stdin", stdin=f"{item[0][0]}={item[1]}\n"), values.items()))
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * len(values)
    assert open_keystore(one.folder) == values


def test_a_value_in_the_file_that_hides_the_stored_one_is_named(one: ProgramCopy) -> None:
    (one.folder / "muxer.cfg").write_text("[htcc]\npassword = a value of the file\n[rcs]\npassword =\n")
    done = one.run_program("--stdin", stdin="htcc=first\nrcs=second\n")
    assert (
        done.returncode == 0
        and "It has a value now, which is used instead: [htcc] password. Remove it there." in done.stdout
    )
    assert "a value of the file" not in done.stdout + done.stderr
    (one.folder / "muxer.cfg").write_bytes(b"\xff\xfe[")
    assert "used instead" not in one.run_program("--stdin", stdin="htcc=first\n").stdout


def test_no_keystore_is_created_when_all_prompts_are_skipped(one: ProgramCopy) -> None:
    with ProgramTerminal(one) as terminal:
        for prompt in PROMPTS:
            terminal.type_answer(prompt, "")
        assert terminal.wait_for_exit() == 0
    assert "nothing was changed" in terminal.shown and "It holds now: nothing" in terminal.shown
    assert one.keystore_files() == set()


def test_wrong_repetition_is_prompted_again(one: ProgramCopy) -> None:
    with ProgramTerminal(one) as terminal:
        for _ in range(3):
            terminal.type_answer(PROMPTS[0], "this")
            terminal.type_answer(REPEAT_PROMPT, "that")
        terminal.type_twice(PROMPTS[0], "those")
        for prompt in PROMPTS[1:]:
            terminal.type_answer(prompt, "")
        assert terminal.wait_for_exit() == 0
    assert terminal.shown.count("The two values differ.") == 3
    assert open_keystore(one.folder) == {HTCC: "those"}


def test_three_more_wrong_repetitions_end_the_program(stored: ProgramCopy) -> None:
    with ProgramTerminal(stored) as terminal:
        terminal.type_twice(PROMPTS[0], "new")
        for _ in range(4):
            terminal.type_answer(PROMPTS[1], "this")
            terminal.type_answer(REPEAT_PROMPT, "that")
        assert terminal.wait_for_exit() == 2
    assert "[rcs] password: was not repeated correctly; nothing was changed" in terminal.shown
    assert is_unchanged(stored)


@pytest.mark.parametrize("key", spread_variants(["\x03", "\x04"], 2), ids=["Ctrl-C", "Ctrl-D"])
@pytest.mark.parametrize("at", spread_variants([1, 0, 2], 3))
def test_interrupt_at_prompt_changes_nothing(stored: ProgramCopy, at: int, key: str) -> None:
    with ProgramTerminal(stored) as terminal:
        if at:
            terminal.type_answer(PROMPTS[0], "new")
        if at > 1:
            terminal.type_answer(REPEAT_PROMPT, "new")
        terminal.type_answer((PROMPTS[0], REPEAT_PROMPT, PROMPTS[1])[at], "", end=key)
        assert terminal.wait_for_exit() == 130
    assert terminal.shown.endswith("Stopped; nothing was changed.\r\n")
    assert "Traceback" not in terminal.shown
    assert is_unchanged(stored)


def test_interrupt_in_new_folder_leaves_no_file(one: ProgramCopy) -> None:
    with ProgramTerminal(one) as terminal:
        terminal.type_twice(PROMPTS[0], "new")
        terminal.type_answer(PROMPTS[1], "", end="\x03")
        assert terminal.wait_for_exit() == 130
    assert one.keystore_files() == set()


def test_undecodable_terminal_input_is_refused_without_traceback(stored: ProgramCopy) -> None:
    with ProgramTerminal(stored) as terminal:
        terminal.type_answer(PROMPTS[0], "")
        terminal.type_answer(PROMPTS[1], "")
        terminal.type_answer(PROMPTS[2], b"half\xe9")
        assert terminal.wait_for_exit() == 2
    assert "[webdav] password: is not in the character set of this terminal" in terminal.shown
    assert "half" not in terminal.shown
    assert is_unchanged(stored)


def test_unusable_keystore_is_reported_before_first_prompt(stored: ProgramCopy) -> None:
    (stored.folder / KEY_FILE).write_bytes(os.urandom(32))
    before = (stored.folder / KEYSTORE_FILE).read_bytes()
    with ProgramTerminal(stored) as terminal:
        assert terminal.wait_for_exit() == 2
    assert "cannot be decrypted" in terminal.shown
    assert PROMPTS[0] + " (" not in terminal.shown
    assert (stored.folder / KEYSTORE_FILE).read_bytes() == before


# ---- without a terminal ------------------------------------------------------------------------------


def test_missing_terminal_is_refused(site: ProgramCopy) -> None:
    done = site.run_program(stdin="one\none\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no terminal" in done.stderr
    assert "--stdin" in done.stderr
    assert site.keystore_files() == set()


def test_missing_standard_input_is_refused(one: ProgramCopy) -> None:
    for arguments in ((), ("--stdin",)):
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *one.command_line(*arguments)]
        done = subprocess.run(
            command, cwd=one.folder, env=ENVIRONMENT, capture_output=True, timeout=TIMEOUT_SECONDS, check=False
        )
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr
    assert one.keystore_files() == set()


def test_stdin_values_are_stored_unchanged(site: ProgramCopy) -> None:
    lines = f"htcc={SECRET}\r\n\nRCS = spaced \nwebdav=a=b=\ns3=line\u2028\x0c\x85separators"
    done = site.run_program("--stdin", stdin="\ufeff" + lines)
    assert (done.returncode, done.stderr) == (0, "")
    assert open_keystore(site.folder) == {
        HTCC: SECRET,
        RCS: " spaced ",
        WEBDAV: "a=b=",
        S3: "line\u2028\x0c\x85separators",
    }
    assert SECRET not in done.stdout


def test_stdin_adds_to_stored_secrets(stored: ProgramCopy) -> None:
    assert stored.run_program("--stdin", stdin="s3=other\nrcs=new\n").returncode == 0
    assert open_keystore(stored.folder) == {HTCC: SECRET, S3: "other", RCS: "new"}


@pytest.mark.parametrize(
    ("lines", "what"),
    spread_variants(
        [
            *(("", "is empty"), ("\n\r\n", "is empty"), ("rcs=new\nhtcc=\n", "line 2"), ("hunter2\n", "line 1")),
            *(
                ("rcs=new\n\nprocessing=hunter2\n", "line 3"),
                ("rcs=hunter2\nrcs=hunter3\n", "line 2"),
                (b"rcs=\xff", "UTF-8"),
            ),
        ],
        2,
    ),
)
def test_invalid_stdin_stores_nothing(stored: ProgramCopy, lines: str | bytes, what: str) -> None:
    done = stored.run_program("--stdin", stdin=lines)
    assert (done.returncode, done.stdout) == (2, "")
    assert "encryptPassword.py: standard input" in done.stderr
    assert what in done.stderr
    assert "hunter" not in done.stderr
    assert is_unchanged(stored)


def test_an_address_that_the_muxer_cannot_use_is_refused(stored: ProgramCopy) -> None:
    for address in ("not-an-address-geheim", "amqp://u:geheim/x@host"):
        done = stored.run_program("--stdin", stdin=f"htcc=new\nfleet={address}\n")
        assert (done.returncode, done.stdout) == (2, "") and "geheim" not in done.stderr
        assert "[fleet] broker_url: " in done.stderr and "nothing was changed" in done.stderr
    assert is_unchanged(stored)


def test_unwritable_folder_is_named(one: ProgramCopy) -> None:
    (one.folder / KEY_FILE).mkdir()
    done = one.run_program("--stdin", stdin="rcs=new\n")
    assert done.returncode == 2
    assert str(one.folder / KEY_FILE) in done.stderr
    assert "Traceback" not in done.stderr


def test_umask_of_caller_does_not_matter(one: ProgramCopy) -> None:
    command = ["sh", "-c", 'umask 0; exec "$@"', "sh", *one.command_line("--stdin")]
    subprocess.run(command, cwd=one.folder, env=ENVIRONMENT, input=b"rcs=new", timeout=TIMEOUT_SECONDS, check=True)
    for name in (KEYSTORE_FILE, KEY_FILE):
        assert stat.S_IMODE((one.folder / name).stat().st_mode) == 0o600
    assert one.keystore_files() == {KEYSTORE_FILE, KEY_FILE}


def test_systemd_credential_is_the_key(one: ProgramCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credential = tmp_path / CREDENTIAL_NAME
    credential.write_bytes(os.urandom(32))
    credential.chmod(0o400)
    assert one.run_program("--stdin", stdin="rcs=new", CREDENTIALS_DIRECTORY=str(tmp_path)).returncode == 0
    assert one.keystore_files() == {KEYSTORE_FILE}
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert open_keystore(one.folder) == {RCS: "new"}


# ---- the other options -------------------------------------------------------------------------------


def test_list_shows_names_and_no_values(stored: ProgramCopy) -> None:
    done = stored.run_program("--list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[htcc] password\n[s3] secret_access_key\n", "")


def test_list_of_missing_keystore_is_empty(one: ProgramCopy) -> None:
    done = one.run_program("--list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert one.keystore_files() == set()


def test_remove_deletes_one_secret_and_reports_it(stored: ProgramCopy) -> None:
    done = stored.run_program("--remove", "s3")
    assert (done.returncode, done.stderr) == (0, "")
    removed = f"Removed from {stored.folder / KEYSTORE_FILE}: [s3] secret_access_key\n"
    assert done.stdout == f"{removed}It holds now: [htcc] password\n"
    assert open_keystore(stored.folder) == {HTCC: SECRET}


@pytest.mark.parametrize("name", spread_variants(["nonsense", "rcs", ""], 3))
def test_remove_of_unknown_secret_is_refused(stored: ProgramCopy, name: str) -> None:
    done = stored.run_program("--remove", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--remove {name}: the keystore has no such password; it holds: htcc, s3" in done.stderr
    assert is_unchanged(stored)


def test_config_file_selects_another_folder(one: ProgramCopy, tmp_path: Path) -> None:
    config = tmp_path / "etc" / "other.cfg"
    config.parent.mkdir()
    config.touch()
    assert one.run_program("--stdin", "--config-file", str(config), stdin="rcs=new").returncode == 0
    assert one.run_program("--list", "--config-file=../etc/other.cfg").stdout == "[rcs] password\n"
    assert one.keystore_files() == set()
    assert open_keystore(config.parent) == {RCS: "new"}


def test_a_folder_without_configuration_is_refused(one: ProgramCopy) -> None:
    (one.folder / "muxer.cfg").unlink()
    done = one.run_program("--stdin", stdin="rcs=new")
    assert done.returncode == 2 and one.keystore_files() == set()
    assert f"{one.folder / 'muxer.cfg'}: does not exist; run this in the folder of muxer.cfg" in done.stderr
    for arguments in (("--list",), ("--remove", "rcs")):
        done = one.run_program(*arguments)
        assert (done.returncode, done.stdout) == (2, "") and "does not exist; run this in the folder" in done.stderr


def test_a_path_that_cannot_be_looked_at_is_refused(one: ProgramCopy) -> None:
    """As a muxer.cfg in a folder that is closed to the account."""
    done = one.run_program("--list", "--config-file", "x" * 300)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("encryptPassword.py: ") and "File name too long; nothing was changed" in done.stderr


@pytest.mark.parametrize("path", ["missing.cfg", "."])
def test_invalid_config_file_is_refused(one: ProgramCopy, path: str) -> None:
    done = one.run_program("--stdin", f"--config-file={path}", stdin="rcs=new")
    assert done.returncode == 2
    assert "is not a file" in done.stderr
    assert one.keystore_files() == set()


def test_help_names_every_section_and_option(site: ProgramCopy) -> None:
    done = site.run_program("--help")
    assert done.returncode == 0
    assert set(re.findall(r"--[a-z-]+", done.stdout)) == {"--help", "--config-file", "--stdin", "--list", "--remove"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--list", "--stdin"),
        *(pytest.param(one, marks=pytest.mark.long) for one in (("--list", "--remove", "s3"), ("--nonsense",))),
    ],
)
def test_wrong_usage_is_refused(stored: ProgramCopy, arguments: tuple[str, ...]) -> None:
    assert stored.run_program(*arguments).returncode == 2
    assert is_unchanged(stored)
