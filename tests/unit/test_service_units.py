"""The systemd units match the program, and systemd, where installed, accepts them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from muxer.app.daemon import CANCEL_SECONDS, GRACE_SECONDS
from muxer.config.keystore import CREDENTIAL_NAME
from muxer.config.schema import all_options
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_SOME_FAILED

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ONE, MANY = DOCS / "recording-muxer.service", DOCS / "recording-muxer@.service"
WORKER = DOCS / "recording-muxer-worker@.service"
PREFIX = "/opt/recording-muxer"
# The units may differ only in comments and in these settings.
UNIT_SETTINGS = ("Description", "ExecStart", "StateDirectory", "LogsDirectory")
WORKER_SETTINGS = ("Description", "ExecStart", "WorkingDirectory", "RestartPreventExitStatus")


def read_settings(unit: Path) -> dict[str, list[str]]:
    """Return the values of each setting, in their order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture(params=[ONE, MANY, WORKER], ids=lambda unit: unit.name)
def unit(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    return read_settings(request.param)


@pytest.mark.parametrize("path", [ONE, MANY], ids=lambda path: path.name)
def test_the_command_matches_that_of_an_installation(path: Path) -> None:
    unit = read_settings(path)
    (command,) = unit["ExecStart"]
    assert re.fullmatch(
        f"{PREFIX}/venv/bin/python muxer_process.py --config-file=/etc/recording-muxer/(muxer|%i).cfg", command
    )
    assert unit["WorkingDirectory"] == [f"{PREFIX}/muxer"]
    assert (ROOT / "muxer" / "muxer_process.py").is_file()
    assert "--prefix /opt/recording-muxer" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_worker_is_started_by_a_command_of_the_package_with_the_one_configuration() -> None:
    unit = read_settings(WORKER)
    command = f"{PREFIX}/venv/bin/python -m muxer worker --config-file=/etc/recording-muxer/muxer.cfg"
    assert (unit["ExecStart"], unit["WorkingDirectory"]) == ([command], [PREFIX])
    assert (ROOT / "muxer" / "__main__.py").is_file()


@pytest.mark.parametrize(
    ("path", "codes"),
    [(ONE, (EXIT_CONFIG, EXIT_SOME_FAILED)), (MANY, (EXIT_CONFIG, EXIT_SOME_FAILED)), (WORKER, (EXIT_CONFIG,))],
)
def test_the_unit_is_not_restarted_after_errors_that_a_restart_cannot_fix(path: Path, codes: tuple[int, ...]) -> None:
    unit = read_settings(path)
    assert unit["Restart"] == ["always"] and unit["StartLimitIntervalSec"] == ["0"]
    assert unit["RestartPreventExitStatus"] == [" ".join(map(str, codes))]


def test_systemd_waits_longer_than_the_muxer_needs_and_leaves_its_programs_to_it(unit: dict[str, list[str]]) -> None:
    assert unit["KillMode"] == ["mixed"]
    assert float(unit["TimeoutStopSec"][0]) > 10 > GRACE_SECONDS + CANCEL_SECONDS


def test_a_reload_reopens_the_log(unit: dict[str, list[str]]) -> None:
    assert unit["ExecReload"] == ["/bin/kill -HUP $MAINPID"]


def test_the_credential_is_the_one_that_the_keystore_looks_for(unit: dict[str, list[str]]) -> None:
    assert unit["LoadCredential"] == [CREDENTIAL_NAME]


def test_the_unit_contains_no_secret(unit: dict[str, list[str]]) -> None:
    assert "Environment" not in unit and unit["EnvironmentFile"][0].startswith("-")
    variables = [option.env for _, _, option in all_options() if option.env]
    assert not [value for values in unit.values() for value in values if any(name in value for name in variables)]


def test_the_units_differ_only_in_what_is_specific_to_an_instance() -> None:
    one, many = read_settings(ONE), read_settings(MANY)
    assert {name for name in one | many if one.get(name) != many.get(name)} == set(UNIT_SETTINGS)
    assert all("%i" in many[name][0] and "%i" not in one[name][0] for name in UNIT_SETTINGS)


def test_the_unit_of_a_worker_differs_from_that_of_a_muxer_only_in_the_command() -> None:
    one, worker = read_settings(ONE), read_settings(WORKER)
    assert {name for name in one | worker if one.get(name) != worker.get(name)} == set(WORKER_SETTINGS)


needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")


@pytest.fixture
def analyzed(tmp_path: Path) -> Path:
    """Copy the units, with a program and a folder that exist."""
    folder = tmp_path / "units"
    folder.mkdir()
    for unit in (ONE, MANY, WORKER):
        text = unit.read_text(encoding="utf-8").replace(f"{PREFIX}/venv/bin/python", "/bin/true")
        text = re.sub("^WorkingDirectory=.*", "WorkingDirectory=/", text, flags=re.MULTILINE)
        (folder / unit.name).write_text(text, encoding="utf-8")
    return folder


@needs_systemd
@pytest.mark.parametrize("name", [ONE.name, "recording-muxer@0.service", "recording-muxer-worker@1.service"])
def test_systemd_accepts_every_line(analyzed: Path, name: str) -> None:
    verify = ["systemd-analyze", "verify", "--man=no", str(analyzed / name)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "recording-muxer" in line]) == (0, [])


@needs_systemd
def test_the_exposure_is_as_small_as_the_documentation_says(analyzed: Path) -> None:
    security = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(analyzed / ONE.name)]
    done = subprocess.run(security, capture_output=True, text=True, timeout=60, check=False)
    if "offline" in done.stderr:
        pytest.skip("this systemd is too old to judge a unit that is not loaded")
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert score is not None, done.stderr
    documented = re.search(r"exposure level of ([\d.]+)", (ROOT / "docs" / "services.md").read_text(encoding="utf-8"))
    assert documented is not None and float(score[1]) <= float(documented[1])
