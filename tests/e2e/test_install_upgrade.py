"""install.sh for an installation that is in use: which Python, a muxer that runs, versions, and the removal."""

from __future__ import annotations

import os
import pty
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.lab import Lab
from muxer import __version__
from tests.support.daemon import MuxerProcess, wait_until
from tests.support.installer import ROOT, TIMEOUT_SECONDS, FakeMachine, copy_source, run_installer
from tests.support.muxer_runs import log_messages, write_config

Make = Callable[..., Lab]
RUNNING_CODE = 4


@pytest.fixture(scope="module")
def first_installation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Install once, with a source and an umask that hide everything from other accounts."""
    folder = tmp_path_factory.mktemp("first")
    source, prefix = copy_source(folder / "source"), folder / "prefix"
    subprocess.run(["chmod", "-R", "go=", source], check=True)
    result = run_installer("--prefix", prefix, source=source, before=("sh", "-c", 'umask 077; exec "$@"', "sh"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"Installing the muxer {__version__}: {prefix}\n" in result.stdout
    return source, prefix


@pytest.fixture
def installation(first_installation: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    source, prefix = tmp_path / "source", tmp_path / "prefix"
    shutil.copytree(first_installation[0], source)
    shutil.copytree(first_installation[1], prefix, symlinks=True, ignore=shutil.ignore_patterns(".venv-*"))
    for environment in first_installation[1].glob(".venv-*"):  # thousands of files that no test writes to
        (prefix / environment.name).symlink_to(environment)
    return source, prefix


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


# ---- which Python ------------------------------------------------------------------------------------


@pytest.mark.skipif(os.getuid() != 0, reason="only root installs for other accounts")
@pytest.mark.long
def test_other_accounts_can_read_what_root_installs(first_installation: tuple[Path, Path]) -> None:
    _, prefix = first_installation
    for path in (prefix, *prefix.rglob("*")):
        mode = path.stat().st_mode
        assert mode & stat.S_IROTH and (mode & stat.S_IXOTH or not path.is_dir()), path


def fake_python(path: Path, name: str, *, version: int = 0, closed: str = "") -> Path:
    """Write a Python that says its name where it would create an environment. `closed` keeps other accounts from it."""
    path.write_text(
        "#!/bin/bash\n"
        f"[[ $1 == -m ]] && {{ echo 'this is {name}'; exit 1; }}\n"
        f"[[ $1 == - ]] && {{ echo '{closed}'; exit 0; }}\n"
        f"[[ $2 == *version_info* ]] && exit {version}\nexit 0\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path / "machine", "debian", user=0).with_tools()


def test_the_python_of_the_system_is_preferred_to_that_on_path(machine: FakeMachine, tmp_path: Path) -> None:
    fake_python(machine.bin / "python3", "the first on PATH")
    fake_python(machine.system_python, "that of the system")
    source = copy_source(tmp_path / "source")
    for action in (("--prefix", tmp_path / "to"), ("--demo",)):
        assert "this is that of the system" in machine.run_installer(*action, source=source).stderr, "the tests use it, too"
    chosen = fake_python(tmp_path / "chosen", "the chosen one")
    result = machine.run_installer("--prefix", tmp_path / "to", "--python", chosen, source=source)
    assert "this is the chosen one" in result.stderr


def test_a_python_that_other_accounts_cannot_run_is_the_last_choice(machine: FakeMachine, tmp_path: Path) -> None:
    source = copy_source(tmp_path / "source")
    fake_python(machine.bin / "python3", "of root", closed="/root")
    result = machine.run_installer("--prefix", tmp_path / "to", source=source)
    assert "this is of root" in result.stderr
    assert "Warning: other accounts cannot use /root. A service that does not run as root cannot start" in result.stdout
    fake_python(machine.bin / "python3.12", "of all")
    result = machine.run_installer("--prefix", tmp_path / "to", source=source)
    assert "this is of all" in result.stderr and "Warning" not in result.stdout
    result = machine.run_installer("--prefix", tmp_path / "to", "--python", machine.bin / "python3", source=source)
    assert "this is of root" in result.stderr and "Warning: other accounts cannot use /root" in result.stdout


def test_folders_that_keep_other_accounts_away_are_found(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "open").mkdir(parents=True)
    script = f'. "{ROOT}/install.d/system.sh"; closed_to_others /usr/bin/python3 "$@"'
    found = {}
    for mode in (0o755, 0o750):
        closed.chmod(mode)
        command = ["bash", "-c", f"ROOT={ROOT}; {script}", "bash", closed / "open" / "later", tmp_path]
        found[mode] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    # The folders of pytest are closed themselves.
    assert found[0o750] in {found[0o755], str(closed)} and found[0o750]


@pytest.mark.parametrize(
    ("python", "message"),
    [("no-such-python", "is no program"), ("{old}", "is no Python 3.11 or later"), ("", "needs the path of a Python")],
)
def test_an_unusable_choice_is_refused(machine: FakeMachine, tmp_path: Path, python: str, message: str) -> None:
    old = fake_python(tmp_path / "old", "old", version=1)
    source = copy_source(tmp_path / "source")
    result = machine.run_installer("--prefix", tmp_path / "to", f"--python={python.format(old=old)}", source=source)
    assert result.returncode == 2 and message in result.stderr
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--demo", "--python", "/usr/bin/python3"), "--python goes with --prefix DIR"),
        (("--prefix", "/tmp/x", "--purge"), "--purge goes with --uninstall DIR"),
        (("--demo", "--yes"), "--yes goes with --prefix DIR or --uninstall DIR"),
        (("--uninstall",), "--uninstall needs a folder"),
        (("--uninstall", "/tmp/x", "--prefix", "/tmp/x"), "one at a time"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str) -> None:
    result = run_installer(*arguments)
    assert result.returncode == 2 and message in result.stderr


def test_only_the_long_tests_need_the_tools_that_build_packages(machine: FakeMachine, tmp_path: Path) -> None:
    source = copy_source(tmp_path / "source")
    fake_python(machine.bin / "python3", "it")
    machine.add_program("apt-get", 'echo "$*" >>"$LOG"')
    machine.run_installer("--test", source=source)
    assert "rabbitmq-server\n" in machine.logged_calls()
    machine.run_installer("--test", "--long", source=source)
    windows = "wine wine64 gcc-mingw-w64-x86-64-posix libssl-dev"
    assert machine.logged_calls().endswith(f" rabbitmq-server dpkg rpm buildah debootstrap {windows}\n")


def test_the_long_tests_are_refused_where_their_tools_are_not_packaged(tmp_path: Path) -> None:
    machine = FakeMachine(tmp_path / "machine", "rhel", 0)
    result = machine.run_installer("--test", "--long", source=copy_source(tmp_path / "source"))
    assert result.returncode == 2 and "--long needs Debian or Ubuntu" in result.stderr


# ---- a muxer that runs -------------------------------------------------------------------------------


def answer_on_terminal(answer: str, *arguments: str | Path, source: Path) -> tuple[int, str]:
    """Run install.sh with a terminal as its input, and answer its question."""
    screen, terminal = pty.openpty()
    command = ["bash", str(source / "install.sh"), *map(str, arguments)]
    process = subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.close(terminal)
    os.write(screen, f"{answer}\n".encode())
    written, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    os.close(screen)
    return process.returncode, written


@pytest.mark.long
def test_nothing_is_replaced_or_removed_below_a_running_muxer(installation: tuple[Path, Path], make_lab: Make) -> None:
    source, prefix = installation
    config, log = write_config(make_lab())
    with (source / "muxer" / "__init__.py").open("a") as module:
        module.write("\n# upgraded\n")
    with MuxerProcess(config, package=prefix / "muxer") as muxer:
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        before = files_of(prefix)
        for action in ("--prefix", "--uninstall"):
            result = run_installer(action, prefix, source=source)
            assert result.returncode == RUNNING_CODE, result.stdout + result.stderr
            assert f"a muxer runs from {prefix}; nothing was changed." in result.stderr
            assert f"process {muxer.process.pid}: " in result.stderr and "add --yes" in result.stderr
            code, written = answer_on_terminal("n", action, prefix, source=source)
            assert code == RUNNING_CODE and f"process {muxer.process.pid}: " in written
        assert files_of(prefix) - before <= {one for one in files_of(prefix) if one.endswith(".pyc")}
        assert "# upgraded" not in (prefix / "muxer" / "__init__.py").read_text()
        code, written = answer_on_terminal("y", "--prefix", prefix, source=source)
        assert code == 0, written
        assert "# upgraded" in (prefix / "muxer" / "__init__.py").read_text()
        result = run_installer("--prefix", prefix, "--yes", source=source)
        assert result.returncode == 0 and f"Warning: a muxer runs from {prefix}." in result.stdout, result.stderr
        assert "restart it" in result.stdout
        assert muxer.stop() == 0
    result = run_installer("--prefix", prefix, source=source)
    assert result.returncode == 0 and "Warning: a muxer" not in result.stdout and "restart it" not in result.stdout


@pytest.mark.parametrize(
    ("cwd", "words", "found"),
    [
        ("muxer", ["../venv/bin/python", "muxer_process.py", "--config-file=muxer.cfg"], True),
        ("", ["{dir}/venv/bin/python", "-m", "muxer", "worker", "--config-file=/etc/muxer.cfg"], True),
        ("..", ["{dir}/venv/bin/python", "-I", "-c", "run_console_script()", "{dir}", "run"], True),
        ("..", ["/opt/other/venv/bin/python", "muxer_process.py"], False),
        ("muxer", ["vi", "muxer.cfg"], False),
    ],
    ids=["as in the guide", "a worker", "by the command", "another installation", "an editor"],
)
def test_processes_of_an_installation_are_recognized(tmp_path: Path, cwd: str, words: list[str], found: bool) -> None:
    folder, process = tmp_path / "installed", tmp_path / "proc" / "4711"
    (folder / "muxer").mkdir(parents=True)
    process.mkdir(parents=True)
    (process / "cwd").symlink_to(folder / cwd)
    (process / "cmdline").write_text("".join(f"{word.format(dir=folder)}\0" for word in words))
    (folder / ".installed").write_text("")
    result = run_installer("--uninstall", folder, env={"MUXER_PROC": str(process.parent)})
    assert (result.returncode, "process 4711: " in result.stderr) == ((RUNNING_CODE, True) if found else (0, False))


# ---- versions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "text"),
    [
        ("0.1.0", f"Upgrading the muxer from 0.1.0 to {__version__}: "),
        (__version__, f"Installing the muxer {__version__} again: "),
        ("10.0.0", f"Going back from muxer 10.0.0 to {__version__}: "),
    ],
)
@pytest.mark.long
def test_an_upgrade_says_from_which_version_to_which(installation: tuple[Path, Path], installed: str, text: str) -> None:
    source, prefix = installation
    module = prefix / "muxer" / "__init__.py"
    module.write_text(re.sub('__version__ = ".*"', f'__version__ = "{installed}"', module.read_text()))
    result = run_installer("--prefix", prefix, source=source)
    assert result.returncode == 0 and text in result.stdout, result.stdout + result.stderr


# ---- removal -----------------------------------------------------------------------------------------


@pytest.mark.long
def test_removal_keeps_what_is_of_the_user(installation: tuple[Path, Path]) -> None:
    source, prefix = installation
    users = {"muxer/muxer.cfg", "muxer/muxer.keystore", "muxer/recording-muxer-single.log", "thirdparty/ffmpeg/ffmpeg"}
    users |= {"docs/a note", "temp/publishing/crash"}
    for name in users:
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(f"mine: {name}")
    result = run_installer("--uninstall", prefix, source=source)
    assert result.returncode == 0, result.stderr
    assert f"Removing the muxer {__version__}: {prefix}\n" in result.stdout
    assert f"Your own files stay: {prefix} (--purge removes them, too)\n" in result.stdout
    assert f"  {prefix}/muxer/muxer.cfg\n" in result.stdout
    assert files_of(prefix) == users and not (prefix / "venv").is_symlink() and not list(prefix.glob(".venv-*"))
    again = run_installer("--uninstall", prefix, "--purge", source=source)
    assert again.returncode == 2 and f"{prefix} is no installation by this script" in again.stderr
    result = run_installer("--prefix", prefix, source=source)
    assert result.returncode == 0 and (prefix / "muxer" / "muxer.cfg").read_text() == "mine: muxer/muxer.cfg"


@pytest.mark.parametrize("folder", ["not installed", "does not exist"])
def test_a_folder_that_is_no_installation_is_not_touched(tmp_path: Path, folder: str) -> None:
    (tmp_path / "not installed" / "muxer").mkdir(parents=True)
    result = run_installer("--uninstall", tmp_path / folder, "--purge")
    assert result.returncode == 2 and "is no installation by this script" in result.stderr
    assert (tmp_path / "not installed" / "muxer").is_dir() and not (tmp_path / "does not exist").exists()


def test_the_installation_of_a_package_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "setup").touch()
    refused = run_installer("--prefix", tmp_path)
    assert refused.returncode == 2 and f"{tmp_path} is of a deb or rpm package" in refused.stderr
