"""The image of containers/Containerfile: built from Debian packages, it muxes without root and ends on SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.lab import Lab
from muxer import __version__
from tests.support.calls import add_short
from tests.support.container_builder import ContainerBuilder, copy_context
from tests.support.daemon import wait_until
from tests.support.muxer_runs import labelled_ids

pytestmark = pytest.mark.long
IMAGE, ACCOUNT = "recording-muxer", 10001
STATE_FOLDER, CONFIG_FOLDER = "/var/lib/recording-muxer", "/etc/recording-muxer"
TIMEOUT_SECONDS = 120
PLANTED = "a-password-of-the-source-folder"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerBuilder]:
    """Return a builder that has built the image."""
    folder = tmp_path_factory.mktemp("containers")
    built = ContainerBuilder(folder)
    try:
        context = copy_context(folder / "context")
        for name in ("muxer.cfg", "muxer/muxer.cfg", "muxer/muxer.keystore"):
            (context / name).write_text(PLANTED)
        built.build_image(context, IMAGE)
        yield built
    finally:
        built.remove_all()


@pytest.fixture(scope="module")
def settings(builder: ContainerBuilder) -> dict[str, Any]:
    return builder.image_settings(IMAGE)


def run_in_container(builder: ContainerBuilder, command: list[str], mounts: dict[Path, str]) -> tuple[int, str]:
    # A separate container: no run of buildah shares one with a program that runs.
    process = builder.start_program(builder.call("from", "--pull-never", IMAGE), command, mounts)
    out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    return process.returncode, out + err


def test_the_image_runs_without_root_and_has_a_health_check(settings: dict[str, Any]) -> None:
    assert settings["User"] == str(ACCOUNT) and settings["StopSignal"] == "SIGTERM"
    assert settings["Healthcheck"]["Test"][:3] == ["CMD", "/opt/recording-muxer/recording-muxer", "status"]
    assert settings["Cmd"] == ["run", f"--config-file={CONFIG_FOLDER}/muxer.cfg"]
    assert list(settings["Volumes"]) == [STATE_FOLDER]


def test_the_container_muxes_logs_to_stderr_and_ends_on_sigterm(
    builder: ContainerBuilder, settings: dict[str, Any], make_lab: Callable[..., Lab], tmp_path: Path
) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [0])
    state, configuration = tmp_path / "state", tmp_path / "configuration"
    for folder in (state, configuration):
        folder.mkdir(mode=0o700)
        os.chown(folder, ACCOUNT, ACCOUNT)
    text = lab.config_text(**{"logfile.output": "stderr", "logfile.format": "json", "processing.min_poll_interval": "0.01"})
    for name in ("temp_dir", "logfile_path"):
        text = re.sub(rf"^{name} = .*$", f"{name} = {STATE_FOLDER}", text, flags=re.MULTILINE)
    (configuration / "muxer.cfg").write_text(text)
    os.chown(configuration / "muxer.cfg", ACCOUNT, ACCOUNT)
    mounts = {state: STATE_FOLDER, configuration: CONFIG_FOLDER}
    container = builder.call("from", "--pull-never", IMAGE)
    process = builder.start_program(container, [*settings["Entrypoint"], *settings["Cmd"]], mounts)
    try:
        wait_until(lambda: process.poll() is not None or call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the muxed file")
        assert process.poll() is None, process.communicate()
        pid = json.loads((state / "state.json").read_text())["pid"]
        assert Path(f"/proc/{pid}").stat().st_uid == ACCOUNT
        health = settings["Healthcheck"]["Test"][1:]
        wait_until(lambda: run_in_container(builder, health, mounts)[0] == 0, TIMEOUT_SECONDS, "a healthy state")
        shown = run_in_container(builder, health, mounts)[1]
        assert "single: runs" in shown, process.communicate() if process.poll() is not None else "the muxer runs"
        os.kill(pid, signal.SIGTERM)
        _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except BaseException:
        # The end of buildah does not end the program, which the next installation would find.
        if (state / "state.json").exists():
            os.kill(json.loads((state / "state.json").read_text())["pid"], signal.SIGKILL)
        raise
    finally:
        process.kill()
    assert process.returncode == 0
    messages = [json.loads(line)["message"] for line in err.splitlines() if line.startswith("{")]
    assert "recording muxed" in messages and messages[-1] == "stopped"
    assert not list(state.glob("*.log"))
    code, shown = run_in_container(builder, settings["Healthcheck"]["Test"][1:], mounts)
    assert code == 1 and "no instance runs" in shown


def test_the_image_has_the_packages_of_a_fleet(builder: ContainerBuilder, settings: dict[str, Any]) -> None:
    code, shown = run_in_container(builder, [*settings["Entrypoint"], "--version"], {})
    assert code == 0 and f"Recording Muxer {__version__}" in shown
    python = "/opt/recording-muxer/venv/bin/python"
    assert run_in_container(builder, [python, "-c", "import pika, dramatiq"], {})[0] == 0


def test_no_configuration_of_the_source_folder_is_in_the_image(builder: ContainerBuilder) -> None:
    search = ["grep", "--recursive", "--files-with-matches", PLANTED, "/opt/recording-muxer", CONFIG_FOLDER]
    code, shown = run_in_container(builder, search, {})
    assert code == 1 and "/opt/" not in shown, shown
