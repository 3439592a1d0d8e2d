"""install.sh without a network: wheels that thirdparty/fetch.py brought, builds that were unpacked in thirdparty/.

There is really no network: the installer runs in a separate network namespace, whose only interface is down.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import own_openssl
from tests.support.installer import NO_VENV_OUTPUT, TIMEOUT_SECONDS, FakeMachine, copy_source, run_installer
from tests.support.tiers import spread_variants

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return copy_source(tmp_path / "source of it")


@pytest.fixture(scope="module")
def no_network() -> tuple[str, ...]:
    """Return the command prefix that removes the network; skip the test where this is not permitted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        subprocess.run([sys.executable, "-c", connect], check=True)
        for unshare in (("unshare", "-n"), ("unshare", "-rn")) if shutil.which("unshare") else ():
            if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
                continue
            gone = subprocess.run([*unshare, sys.executable, "-c", connect], capture_output=True, text=True, check=False)
            assert "Network is unreachable" in gone.stderr
            return unshare
    pytest.skip("this system does not allow a network namespace of one's own")


def run_fetch(source: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, source / "thirdparty" / "fetch.py", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder whose wheels/ the script has filled for this machine."""
    source = copy_source(tmp_path_factory.mktemp("filled") / "source of it")
    done = run_fetch(source)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{source}/thirdparty/wheels holds all wheels for requirements.txt, ")
    assert len(done.stdout.splitlines()) == 1 and not done.stderr
    return source


@pytest.mark.long
def test_an_installation_without_any_network(filled: Path, no_network: tuple[str, ...], tmp_path: Path) -> None:
    source, prefix = filled, tmp_path / "the prefix"
    openssl = own_openssl.build_openssl(source / "thirdparty/openssl/openssl-3.0.13", "bin/openssl", "lib")
    done = run_installer("--offline", "--prefix", prefix, source=source, before=no_network)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert done.stdout.splitlines()[-1].startswith("Start: ")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for option, expected in (("--help", "usage: muxer_process.py"), ("--version", "Recording Muxer ")):
        started = subprocess.run(
            [*no_network, "../venv/bin/python", "muxer_process.py", option],
            cwd=prefix / "muxer",
            env=env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        assert started.returncode == 0, started.stderr
        assert started.stdout.startswith(expected)
    brought = prefix / openssl.relative_to(source)
    assert brought.read_bytes() == openssl.read_bytes()
    assert os.access(brought, os.X_OK)


@pytest.mark.long
def test_wheels_for_another_system_are_reported(filled: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(filled, source)
    wheels = source / "thirdparty" / "wheels"
    (ours,) = wheels.glob("cffi-*.whl")
    ours.rename(wheels / f"{'-'.join(ours.name.split('-')[:4])}-win_amd64.whl")
    (wheels / "filled-for.txt").write_text(f"requirements.txt, win_amd64, Python {VERSION}\n")
    done = run_installer("--prefix", tmp_path / "prefix", source=source)
    assert done.returncode == 3
    assert "No matching distribution found for cffi==" in done.stderr
    assert f"{wheels} does not serve for requirements.txt with Python " in done.stderr
    assert f"It was filled for: requirements.txt, win_amd64, Python {VERSION}\n" in done.stderr
    assert f"python3 thirdparty/fetch.py --python-version {VERSION}" in done.stderr
    assert "Or remove that folder: the packages then come from the registry." in done.stderr
    assert not list((tmp_path / "prefix").glob(".venv*")), "no half environment is left, to be taken for a whole one"


@pytest.mark.parametrize(
    ("action", "purpose"),
    spread_variants(
        [
            ((), ""),
            (("--prefix", "{tmp}/prefix"), ""),
            (("--prefix", "{tmp}/prefix", "--fleet"), " --for fleet"),
            (("--demo",), " --for lab"),
            (("--test",), " --for test"),
        ],
        2,
    ),
)
def test_all_missing_programs_are_reported(source: Path, tmp_path: Path, action: tuple[str, ...], purpose: str) -> None:
    machine = FakeMachine(tmp_path / "machine", "debian", user=0).with_python()
    for name in ("apt-get", "sudo", "curl", "wget"):
        machine.add_program(name, 'echo "$0 $*" >>"$LOG"')
    done = machine.run_installer("--offline", *(word.format(tmp=tmp_path) for word in action), source=source)
    assert done.returncode == 3
    assert "install.sh: this is missing, and --offline downloads nothing:\n" in done.stderr
    for words in (
        "ffmpeg, with its H.264 encoder libx264, and ffprobe",
        "OpenSSL 1.1.1 or later",
        "Unpack a build in thirdparty/ffmpeg/ or thirdparty/openssl/",
        "apt-get install -y ffmpeg openssl",
        f"Python packages: {source}/thirdparty/wheels holds none.",
    ):
        assert words in done.stderr, words
    assert f"python3 thirdparty/fetch.py{purpose} --python-version {VERSION}" in done.stderr
    assert machine.logged_calls() == ""


def test_fetch_alone_prepares_the_folder(source: Path, tmp_path: Path) -> None:
    """Without the environment, which this machine's Python cannot create; another test creates one."""
    machine = FakeMachine(tmp_path / "machine", "debian", user=0).with_python().with_tools()
    (source / "thirdparty" / "wheels").mkdir()
    (source / "thirdparty" / "wheels" / "a.whl").touch()
    done = machine.run_installer("--offline", source=source)
    assert f"Installing Python packages: {source}/.venv (requirements.txt)" in done.stdout
    assert NO_VENV_OUTPUT in done.stderr


def unpack_builds(source: Path, ffmpeg: str = "echo ' V..... libx264  H.264'") -> Path:
    """Put builds of all programs into thirdparty/; return the path of ffmpeg."""
    folder = source / "thirdparty" / "ffmpeg" / "ffmpeg-7.1" / "bin"
    openssl = source / "thirdparty" / "openssl" / "bin" / "openssl"
    scripts = {folder / "ffmpeg": ffmpeg, folder / "ffprobe": "", openssl: "echo OpenSSL 3.0.13"}
    for path, script in scripts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{shutil.which('bash')}\n{script}\n")
        path.chmod(0o755)
    return folder / "ffmpeg"


@pytest.mark.parametrize("action", [("--demo",), ("--prefix", "{tmp}/prefix")])
def test_installation_needs_only_builds_in_thirdparty(source: Path, tmp_path: Path, action: tuple[str, ...]) -> None:
    unpack_builds(source)
    machine = FakeMachine(tmp_path / "machine", "debian", user=0).with_python()
    machine.add_program("apt-get", 'echo "$*" >>"$LOG"')
    done = machine.run_installer(*(word.format(tmp=tmp_path) for word in action), source=source)
    assert NO_VENV_OUTPUT in done.stderr, "it has come to the Python packages"
    assert "Missing" not in done.stdout
    assert machine.logged_calls() == ""


def test_unusable_build_is_named(source: Path, tmp_path: Path) -> None:
    build = unpack_builds(source, ffmpeg="echo ' V..... libopenh264'")
    machine = FakeMachine(tmp_path / "machine", "debian", user=0).with_python().with_tools()
    machine.add_program("apt-get", 'echo "$*" >>"$LOG"')
    done = machine.run_installer("--demo", source=source)
    assert done.returncode == 3
    assert f"in place of {build}, which cannot be used here" in done.stderr
    assert "replace or remove it" in done.stderr
    assert machine.logged_calls() == ""


# ---- fetch.py ----------------------------------------------------------------------------------------


def test_failed_fetch_adds_nothing_and_reports_cause(source: Path) -> None:
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    done = run_fetch(source, **unreachable, PIP_CONFIG_FILE=os.devnull, PIP_FIND_LINKS="")
    assert done.returncode == 1
    assert "No matching distribution found" in done.stderr
    assert "nothing was added to thirdparty/wheels/" in done.stderr and "Python package registry" in done.stderr
    assert not list((source / "thirdparty" / "wheels").iterdir())


@pytest.mark.parametrize("arguments", [("--for", "play"), ("--platform", "plan9"), ("--python-version", "4"), ("more",)])
def test_wrong_usage_of_fetch(source: Path, arguments: tuple[str, ...]) -> None:
    done = run_fetch(source, *arguments)
    assert done.returncode == 2
    assert arguments[-1] in done.stderr and "usage: fetch.py" in done.stderr
