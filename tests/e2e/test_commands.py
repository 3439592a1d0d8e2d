"""The commands as processes: help, version and errors; ``check`` and ``config`` on a terminal and in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer import __version__
from muxer.commands import COMMANDS
from tests.support.checklist import write_check_config
from tests.support.commands import run_main_in_process
from tests.support.daemon import PYTHON

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 120
COLUMNS = 100


def run_cli(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", "muxer", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_names_every_command(word: str) -> None:
    code, out, err = run_main_in_process(word)
    assert code == 0 and not err
    assert all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in ("run", *COMMANDS))


def test_version() -> None:
    assert run_cli("--version").stdout == f"Recording Muxer {__version__}\n"


def test_unknown_command_is_an_error() -> None:
    done = run_cli("chekc")
    assert done.returncode == 2 and not done.stdout
    assert "there is no command 'chekc'; did you mean check?" in done.stderr
    done = run_cli()
    assert done.returncode == 2 and done.stderr.startswith("usage: ")


@pytest.mark.parametrize(
    ("started", "shown"), [("/opt/muxer/__main__.py", "python -m muxer"), ("/usr/bin/recording-muxer", "recording-muxer")]
)
def test_the_usage_shows_the_name_that_was_typed(started: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert run_main_in_process()[2].startswith(f"usage: {shown} COMMAND")
    for name in ("check", "worker", "run"):
        assert run_main_in_process(name, "--help")[1].startswith(f"usage: {shown} {name} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    code, out, err = run_main_in_process(name, "--help")
    assert code == 0 and out.startswith("usage: "), err


def test_installed_script_is_the_same_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["recording-muxer"].partition(":")
    assert callable(getattr(import_module(module), function))
    call = f"import sys; sys.argv = ['recording-muxer', '--version']; from {module} import {function}; {function}()"
    done = subprocess.run(
        [PYTHON, "-c", call], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"Recording Muxer {__version__}\n")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[Lab]):  # type: ignore[no-untyped-def]
    with kept_lab(tmp_path_factory.mktemp("lab")) as running:
        running.add_case(Case.PLAIN)
        yield running


def run_on_terminal(*arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command on a separate pseudo-terminal. Returns its exit code and its output."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "PYTHONUTF8": "1", **(env or {})}
    process = subprocess.Popen(
        [PYTHON, "-m", "muxer", *arguments], cwd=ROOT, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(controller, 65536):
            shown += piece
    except OSError:  # Linux reports a closed pseudo-terminal like this
        pass
    finally:
        os.close(controller)
    return process.wait(TIMEOUT_SECONDS), shown.decode()


@pytest.mark.machine_ffmpeg  # with a short path
def test_check_draws_a_table_on_a_terminal(lab: Lab, tmp_path: Path) -> None:
    config = write_check_config(lab, tmp_path, htcc__password="wrong-password")
    code, shown = run_on_terminal("check", f"--config-file={config}")
    assert code == 1
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert re.search(r"^ +ok +ffmpeg +\S+/ffmpeg: ffmpeg version ", text, re.MULTILINE)
    assert re.search(r"^ +failed +RWS login +as ops: ", text, re.MULTILINE)
    assert "\x1b[1;31mfailed" in shown and re.search(r"^ +→ correct \[htcc\] username", text, re.MULTILINE)
    assert re.search(r"\d+ ok, \d+ warnings?, 1 failed, \d+ skipped", text)
    table = text[text.index("─") :].splitlines()
    assert max(len(line.rstrip()) for line in table) <= COLUMNS
    assert lab.ccid in "".join(line.strip() for line in table), "a long word is broken, not cut"
    assert "wrong-password" not in shown


def test_config_draws_a_table_on_a_terminal(lab: Lab, tmp_path: Path) -> None:
    code, shown = run_on_terminal("config", f"--config-file={write_check_config(lab, tmp_path)}", "--changed")
    assert code == 0 and "───" in shown and "base_uri" in shown


def test_in_a_pipe_each_check_is_a_line(lab: Lab, tmp_path: Path) -> None:
    config = write_check_config(lab, tmp_path)
    done = run_cli("check", f"--config-file={config}", env={"HTCC_PASSWORD": "from-the-environment"})
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 1 and "\x1b" not in done.stdout and not done.stderr
    login = next(line for line in lines if line[1:2] == ["RWS login"])
    assert login[0] == "failed" and "HTCC_PASSWORD" in login[3]
    assert "from-the-environment" not in done.stdout
    assert lines[-1][0].endswith("skipped")


def test_documentation_names_every_command() -> None:
    table = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert [name for name in ("run", *COMMANDS) if f"`{name}`" not in table] == []
