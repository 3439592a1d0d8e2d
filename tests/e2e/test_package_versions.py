"""Versions of Python packages: the start and `check` name an unsuitable one; it does not become a traceback later."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from muxer.errors import Problem
from muxer.system.packages import FLEET_PACKAGES, PACKAGES, find_package_problems
from tests.support.checklist import run_check
from tests.support.commands import ROOT, clean_environment

CONFIG = "[htcc]\nbase_uri = http://127.0.0.1:9\ncontact_center_id = center\npassword = geheim99\n"
OLD = "1.26.16"
TEXT = f"Python package urllib3: {OLD} is installed, 2.2 or later is needed"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "muxer.cfg"
    path.write_text(f"{CONFIG}[processing]\ntemp_dir = {tmp_path}\n[logfile]\nlogfile_path = {tmp_path}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def old_urllib3(tmp_path: Path) -> Path:
    """Return a folder in which urllib3 claims to be an old one, for PYTHONPATH."""
    about = tmp_path / "old" / f"urllib3-{OLD}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: urllib3\nVersion: {OLD}\n")
    return about.parent


def test_the_program_knows_the_declared_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for packages, declared in (
        (PACKAGES, project["dependencies"]),
        (FLEET_PACKAGES, project["optional-dependencies"]["fleet"]),
    ):
        assert [f"{name}>={lowest}{f',<{limit}' if limit else ''}" for name, (lowest, limit) in packages.items()] == declared


def test_the_packages_of_this_environment_are_suitable() -> None:
    assert find_package_problems(is_fleet=True) == []


@pytest.mark.parametrize(
    ("name", "installed", "problem"),
    [
        ("urllib3", OLD, f"{OLD} is installed, 2.2 or later is needed"),
        ("webdav4", "0.12", "0.12 is installed, 0.11 or later and below 0.12 is needed"),
        ("webdav4", "0.10.1", "0.10.1 is installed, 0.11 or later and below 0.12 is needed"),
        ("cheroot", "10.9.9.dev3", "10.9.9.dev3 is installed, 11 or later is needed"),
        ("webdav4", "0.11.9", ""),
        ("urllib3", "2.2", ""),
        ("cheroot", "11", ""),
        ("cheroot", "11.0.1", ""),
        ("boto3", "1.100.0", ""),
        ("python-dateutil", "2.9.0.post0", ""),
    ],
)
def test_the_installed_version_is_compared(monkeypatch: pytest.MonkeyPatch, name: str, installed: str, problem: str) -> None:
    monkeypatch.setattr("muxer.system.packages.version", lambda which: installed if which == name else version(which))
    assert find_package_problems(is_fleet=False) == ([Problem(f"Python package {name}", problem)] if problem else [])


def run_program(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(PYTHONPATH=str(folder))
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_start_names_an_old_package_in_one_line(config: Path, old_urllib3: Path) -> None:
    done = run_program(old_urllib3, "muxer/muxer_process.py", f"--config-file={config}")
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert lines[-2:] == [
        f"  {TEXT}",
        f"  (note) install the packages: {sys.executable} -m pip install -r thirdparty/requirements.txt",
    ]
    assert TEXT in (config.parent / "recording-muxer-single.log").read_text()


def test_check_names_an_old_package_and_connects_to_nothing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxer.system.packages.version", lambda name: OLD if name == "urllib3" else version(name))
    found = run_check(config)
    line = found.line_of("Python package urllib3")
    assert (line.status, line.found) == ("failed", f"{OLD} is installed, 2.2 or later is needed")
    assert line.advice.endswith("-m pip install -r thirdparty/requirements.txt")
    assert found.line_of("RWS address").found == "not checked: needs Python packages"
    assert found.line_of("ffmpeg").status == "ok"
    assert found.exit_code == 1


def test_a_command_whose_package_is_missing_names_it(tmp_path: Path) -> None:
    script = "import sys; sys.modules['requests'] = None\n"
    script += "import muxer.system.packages as packages\n"
    script += "packages.PACKAGES['nosuch'] = ('1', '')\n"
    script += "from muxer.commands import main; sys.exit(main(['check']))"
    done = run_program(tmp_path, "-c", script)
    assert (done.returncode, done.stderr) == (
        2,
        "Python package nosuch: it is not installed; 1 or later is needed\n"
        f"install them: {sys.executable} -m pip install -r thirdparty/requirements.txt\n",
    )


def test_an_old_python_is_named(tmp_path: Path) -> None:
    script = "import sys; sys.version_info = (3, 9, 18); sys.version = '3.9.18 (main)'; import muxer"
    done = run_program(tmp_path, "-c", script)
    assert (done.returncode, done.stderr) == (
        1,
        f"The Recording Muxer needs Python 3.11 or later; {sys.executable} is 3.9.18\n",
    )
