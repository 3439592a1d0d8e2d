"""The deb and the rpm package of tools/release.sh: installed, started, upgraded and removed on a copy of this machine.

The copy has no network. dpkg knows the packages of this machine and checks the dependencies; rpm does not.
"""

from __future__ import annotations

import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from muxer import __version__
from tests.support.daemon import wait_until
from tests.support.installer import ROOT, copy_source
from tests.support.overlay_machine import OverlayMachine, overlay_machine
from tests.support.requirements import require_program

pytestmark = pytest.mark.long
NEXT_VERSION = "99.0.0"
TIMEOUT_SECONDS = 60
CONFIG, HOME = "/etc/recording-muxer/muxer.cfg", "/opt/recording-muxer"
STATE, LOGS = "/var/lib/recording-muxer", "/var/log/recording-muxer"


@dataclass(frozen=True)
class Manager:
    """A package manager."""

    kind: str
    install: tuple[str, ...]
    remove: tuple[str, ...]
    kept_config: str


MANAGERS = (
    Manager("deb", ("dpkg", "--force-confold", "-i"), ("dpkg", "-r"), CONFIG),
    Manager("rpm", ("rpm", "-U", "--nodeps"), ("rpm", "-e", "--nodeps"), f"{CONFIG}.rpmsave"),
)


def build_release(source: Path) -> dict[str, Path]:
    """Commit a source folder and run the release script in it; return the packages by kind."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "a release"]):
        subprocess.run(["git", *words], cwd=source, check=True)
    for name in ("name", "email"):
        subprocess.run(["git", "config", f"user.{name}", "test@localhost"], cwd=source, check=True)
    done = subprocess.run(["tools/release.sh", "--no-checks"], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    packages = {path.suffix[1:]: path for path in (source / "dist").iterdir() if path.suffix in (".deb", ".rpm")}
    sums = (source / "dist" / f"recording-muxer-{version_of(source)}.sha256").read_text()
    assert packages.keys() == {"deb", "rpm"} and all(path.name in sums for path in packages.values())
    return packages


def version_of(source: Path) -> str:
    found = re.search('__version__ = "(.*)"', (source / "muxer" / "__init__.py").read_text())
    assert found
    return found[1]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("dpkg-deb", "rpmbuild", "git"):
        require_program(program)
    source = copy_source(tmp_path_factory.mktemp("packages") / "source")
    for name in ("tools", "pyproject.toml"):
        path = ROOT / name
        (shutil.copytree if path.is_dir() else shutil.copy2)(path, source / name)
    (source / ".gitignore").write_text("__pycache__/\n/dist/\n/thirdparty/wheels/\n")
    (source / "muxer" / "outdated.py").touch()
    return source


@pytest.fixture(scope="module")
def packages(source: Path) -> dict[str, Path]:
    return build_release(source)


@pytest.fixture(scope="module")
def next_packages(source: Path, packages: dict[str, Path]) -> dict[str, Path]:
    """The packages of a next version: without a module, and with another example of the configuration."""
    later = source.with_name("later")
    shutil.copytree(source, later, ignore=shutil.ignore_patterns(".git", "dist"))
    (later / "muxer" / "outdated.py").unlink()
    for name, old, new in (
        ("muxer/__init__.py", f'"{__version__}"', f'"{NEXT_VERSION}"'),
        ("CHANGELOG.md", f"## {__version__}", f"## {NEXT_VERSION}\n\n## {__version__}"),
        ("muxer.cfg.sample", "[htcc]", "# a new comment\n[htcc]"),
    ):
        path = later / name
        path.write_text(path.read_text().replace(old, new, 1))
    return build_release(later)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OverlayMachine]:
    with overlay_machine(tmp_path / "machine") as machine:
        yield machine


def install(
    machine: OverlayMachine, manager: Manager, package: Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    shutil.copy(package, machine.path("/tmp"))
    return machine.run(*manager.install, f"/tmp/{package.name}", check=check)


def mode_and_owner(machine: OverlayMachine, path: str) -> str:
    return machine.run("stat", "-c", "%a %U", path).stdout.strip()


def run_service(machine: OverlayMachine) -> str:
    """Start, reload and stop the muxer as its unit does; return its log."""
    unit = machine.path("/usr/lib/systemd/system/recording-muxer.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if re.match("[A-Z][A-Za-z]+=", line))
    account = [f"--reuid={settings['User']}", f"--regid={settings['Group']}", "--clear-groups"]
    folder, command = settings["WorkingDirectory"], settings["ExecStart"].split()
    line = machine.command_line("setpriv", *account, "env", "-C", folder, *command)
    log = machine.path(f"{LOGS}/recording-muxer-single.log")
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_until(machine.path(f"{STATE}/state.json").exists, TIMEOUT_SECONDS, "its work", log)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "SIGHUP received" in log.read_text(), TIMEOUT_SECONDS, "the reload", log)
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0
    return log.read_text()


def test_the_packages_name_what_they_need(packages: dict[str, Path]) -> None:
    control = subprocess.run(["dpkg-deb", "-f", packages["deb"]], capture_output=True, text=True, check=True).stdout
    assert f"\nVersion: {__version__}\n" in control
    assert "\nDepends: python3 (>= 3.11), python3-venv, ffmpeg (>= 7:4.2), openssl (>= 1.1.1), passwd\n" in control
    needed = subprocess.run(["rpm", "-qpR", packages["rpm"]], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"(python3 >= 3.11 or python3.12 or python3.11)", "ffmpeg", "openssl >= 1.1.1", "shadow-utils"} <= {*needed}
    listed = subprocess.run(["rpm", "-qpc", packages["rpm"]], capture_output=True, text=True, check=True).stdout
    assert listed == f"{CONFIG}\n"


@pytest.mark.parametrize("manager", MANAGERS, ids=lambda manager: manager.kind)
def test_a_package_is_installed_upgraded_and_removed(
    machine: OverlayMachine, packages: dict[str, Path], next_packages: dict[str, Path], manager: Manager
) -> None:
    install(machine, manager, packages[manager.kind])
    assert machine.run("recording-muxer", "--version").stdout == f"Recording Muxer {__version__}\n"
    assert {path: mode_and_owner(machine, path) for path in ("/etc/recording-muxer", STATE, LOGS, CONFIG)} == {
        **dict.fromkeys(("/etc/recording-muxer", STATE, LOGS), "700 recording-muxer"),
        CONFIG: "600 recording-muxer",
    }
    config = machine.path(CONFIG)
    assert f"\ntemp_dir = {STATE}\n" in config.read_text() and f"\nlogfile_path = {LOGS}\n" in config.read_text()
    text = re.sub("(?m)^base_uri =$", "base_uri = http://127.0.0.1:9", config.read_text(), count=1)
    text = text.replace("contact_center_id =", "contact_center_id = of the user", 1)
    config.write_text(text)
    keystore = machine.path("/etc/recording-muxer/muxer.keystore.kept")
    keystore.write_text("of the user")
    assert f"Recording Muxer {__version__} starts as single" in run_service(machine)

    install(machine, manager, next_packages[manager.kind])
    assert machine.run("recording-muxer", "--version").stdout == f"Recording Muxer {NEXT_VERSION}\n"
    assert config.read_text() == text and mode_and_owner(machine, CONFIG) == "600 recording-muxer"
    assert not machine.path(f"{HOME}/muxer/outdated.py").exists()
    assert len(list(machine.path(HOME).glob(".venv-*"))) == 1
    assert f"Recording Muxer {NEXT_VERSION} starts as single" in run_service(machine)

    machine.run(*manager.remove, "recording-muxer")
    assert not machine.path(HOME).exists()
    for path in ("/usr/bin/recording-muxer", "/usr/lib/systemd/system/recording-muxer.service"):
        assert not machine.path(path).is_symlink() and not machine.path(path).exists()
    assert machine.path(manager.kept_config).read_text() == text and keystore.exists()
    assert machine.path(STATE).is_dir() and machine.path(f"{LOGS}/recording-muxer-single.log").exists()
    assert machine.run("getent", "passwd", "recording-muxer").stdout


def test_the_deb_package_follows_a_new_python_and_its_purge_leaves_nothing(
    machine: OverlayMachine, packages: dict[str, Path]
) -> None:
    deb = MANAGERS[0]
    install(machine, deb, packages["deb"])
    assert machine.run("dpkg", "-V", "recording-muxer").stdout == ""
    stamp = next(machine.path(HOME).glob(".venv-*/.stamp"))
    stamp.write_text("of a Python that is gone")
    machine.run("dpkg-trigger", "--by-package=python3", "--no-await", "/usr/bin/python3")
    machine.run("dpkg", "--triggers-only", "--pending")
    assert "of a Python" not in stamp.read_text() and stat.S_ISREG(stamp.stat().st_mode)
    machine.run("recording-muxer", "--version")
    machine.run("dpkg", "-P", "recording-muxer")
    assert not [path for path in (HOME, "/etc/recording-muxer", STATE, LOGS) if machine.path(path).exists()]


@pytest.mark.parametrize("manager", MANAGERS, ids=lambda manager: manager.kind)
def test_an_installation_by_the_script_is_not_overwritten(
    machine: OverlayMachine, packages: dict[str, Path], manager: Manager
) -> None:
    marker = machine.path(f"{HOME}/.installed")
    marker.parent.mkdir(parents=True)
    marker.write_text("muxer/__init__.py\n")
    refused = install(machine, manager, packages[manager.kind], check=False)
    assert refused.returncode != 0 and "./install.sh --uninstall /opt/recording-muxer" in refused.stderr
    assert [path.name for path in marker.parent.iterdir()] == [".installed"]
