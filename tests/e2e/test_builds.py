"""Other builds of ffmpeg for the tests: the run continues when they are not available."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.builds import fetch
from tests.support.checklist import run_check
from tests.support.commands import run_main_in_process

pytestmark = [pytest.mark.machine_ffmpeg, pytest.mark.long]

SCRIPT = Path(fetch.__file__)


def run_fetch(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a copy of the script with an empty cache and without a reachable registry."""
    script = shutil.copy2(SCRIPT, folder)
    nothing = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "NPM_CONFIG_CACHE": str(folder / "npm")}
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "NPM_CONFIG_REGISTRY": "http://127.0.0.1:9/"}
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "NPM_CONFIG_"))}
    command = [sys.executable, str(script)]
    return subprocess.run(command, capture_output=True, text=True, env={**own, **nothing, **unreachable, **environment})


@pytest.mark.parametrize("environment", [{}, {"PIP_NO_INDEX": "1"}], ids=["no registry in reach", "offline"])
def test_unavailable_builds_are_reported_one_per_line(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run_fetch(tmp_path, **environment)
    assert (done.returncode, done.stdout) == (0, "")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == [
        f"ffmpeg {name} is not tested" for name in fetch.DEFAULT_BUILDS
    ]


def write_wheel(folder: Path, package: fetch.Package, content: str) -> Path:
    """Write a wheel that contains only a program."""
    path = folder / f"{package.name.replace('-', '_')}-{package.version}-py3-none-any.whl"
    about = f"{path.name.rsplit('-', 3)[0]}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {package.name}\nVersion: {package.version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
        archive.writestr(package.member, content)
    return path


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="there are no packages for it")
def test_archive_with_wrong_digest_is_refused(tmp_path: Path) -> None:
    write_wheel(tmp_path, fetch.IMAGEIO_4, "#!/bin/sh\n")
    done = run_fetch(tmp_path, PIP_FIND_LINKS=str(tmp_path))
    assert done.returncode == 0
    assert "ffmpeg 4.2.2 is not tested: imageio-ffmpeg 0.4.9 is not the archive that was tested\n" in done.stderr


def test_build_is_unpacked_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_wheel(tmp_path, fetch.IMAGEIO_4, "#!/bin/sh\necho built\n")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    package = fetch.Package("pypi", fetch.IMAGEIO_4.name, fetch.IMAGEIO_4.version, digest, fetch.IMAGEIO_4.member)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    folder = tmp_path / "cache" / "4.2.2"
    fetch.install_programs({"ffmpeg": package}, folder)
    assert subprocess.run([folder / "ffmpeg"], capture_output=True, text=True).stdout == "built\n"
    archive.unlink()
    fetch.install_programs({"ffmpeg": package}, folder)
    with pytest.raises(fetch.FetchError):
        fetch.install_programs({"ffmpeg": package, "ffprobe": package}, folder)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="there are no packages for it")
def test_a_build_that_lacks_an_encoder_is_refused_by_start_and_check(tmp_path: Path) -> None:
    try:
        fetch.install_programs({"ffmpeg": fetch.MINIMAL}, tmp_path / "minimal")
    except fetch.FetchError as error:
        pytest.skip(str(error))
    config = tmp_path / "muxer.cfg"
    config.write_text(
        "[htcc]\nbase_uri = http://127.0.0.1:9\ncontact_center_id = center\npassword = geheim99\n"
        f"[processing]\nffmpeg = {tmp_path}/minimal/ffmpeg\ntemp_dir = {tmp_path}\n"
        f"[logfile]\nlogfile_path = {tmp_path}\n"
    )
    refusal = "this ffmpeg has no libx264 encoder; install a build of version 4.2 or later with it"
    started = run_main_in_process("run", f"--config-file={config}")
    assert started[0] == 2
    assert f"[processing] ffmpeg: cannot be used: {refusal}" in started[2]
    line = run_check(config).line_of("ffmpeg")
    assert line.status == "failed" and refusal in line.found
