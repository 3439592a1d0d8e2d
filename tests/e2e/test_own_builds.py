"""The muxer with the site's own programs: in thirdparty/, by absolute path, and started as in the guide."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support import own_openssl
from tests.support.daemon import PACKAGE, MuxerProcess, run_muxer
from tests.support.tiers import spread_variants

pytestmark = pytest.mark.machine_ffmpeg

Make = Callable[..., Lab]
NO_SUCH_CALL = "startTime=1&endTime=2"


def write_config(lab: Lab, openssl: str, query: str) -> Path:
    config = lab.folder / "muxer.cfg"
    overrides = {"processing.openssl": openssl, "advanced.call_recording_query_string": query}
    config.write_text(lab.config_text(**overrides))
    return config


def read_log(lab: Lab) -> str:
    return (lab.folder / "log" / "recording-muxer-single.log").read_text()


@pytest.mark.long
def test_command_of_the_guide_works_without_shell_expansion(make_lab: Make, tmp_path: Path) -> None:
    """A complete run, started as by LCA: the variable arrives unexpanded."""
    openssl = own_openssl.build_openssl(tmp_path / "openssl")
    lab = make_lab()
    (call,) = lab.add_case(Case.ENCRYPTED)
    config = write_config(lab, str(openssl), "startTime=0")
    done = run_muxer(config, through=("env", f"LD_LIBRARY_PATH={openssl.parent}:$LD_LIBRARY_PATH"))
    assert done.process.returncode == 0, done.err
    media = (lab.store.get_screen(call.id) or {})["mediaFiles"]
    (muxed,) = [one for one in media if "muxed_mediaIds" in one["parameters"]]
    lab.decrypt_file(muxed["pkcs7"], lab.site.media.folder / "screens" / muxed["mediaId"], tmp_path / "clear.mp4")
    assert b"ftyp" in (tmp_path / "clear.mp4").read_bytes()[:16]
    assert f"openssl is {openssl}: OpenSSL" in read_log(lab)


@pytest.mark.parametrize(
    "by_a_shell", spread_variants([True, False], 2), ids=["the command of the guide", "nothing but the path"]
)
def test_muxer_starts_with_own_openssl(make_lab: Make, tmp_path: Path, by_a_shell: bool) -> None:
    openssl = own_openssl.build_openssl(tmp_path / "openssl")
    lab = make_lab()
    config = write_config(lab, str(openssl), NO_SUCH_CALL)
    command = f'exec env LD_LIBRARY_PATH={openssl.parent}:$LD_LIBRARY_PATH "$@"'
    done = run_muxer(config, through=("sh", "-c", command, "sh") if by_a_shell else ())
    assert done.process.returncode == 0, done.err
    assert "0 recordings found" in done.out


def test_builds_in_thirdparty_are_used_without_configuration(make_lab: Make, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    shutil.copytree(PACKAGE, installed / "muxer", ignore=shutil.ignore_patterns("__pycache__", "lab"))
    openssl = own_openssl.build_openssl(installed / "thirdparty/openssl/openssl-3.0.13", "bin/openssl", "lib")
    ffmpeg = installed / "thirdparty/ffmpeg/ffmpeg-7-static/ffmpeg"
    ffmpeg.parent.mkdir(parents=True)
    ffmpeg.write_text('#!/bin/sh\nexec ffmpeg "$@"\n')
    lab = make_lab()
    config = write_config(lab, "", NO_SUCH_CALL)
    refused = run_muxer(config, package=installed / "muxer")
    assert refused.process.returncode == 2
    assert "[processing] ffmpeg: " in refused.err and f"{ffmpeg}, which this account may not execute" in refused.err
    ffmpeg.chmod(0o755)
    done = run_muxer(config, package=installed / "muxer")
    assert done.process.returncode == 0, done.err
    log = read_log(lab)
    assert f"openssl is {openssl}: OpenSSL" in log
    assert f"ffmpeg is {ffmpeg}: ffmpeg version" in log
    assert f"ffprobe is {shutil.which('ffprobe')}: ffprobe version" in log


@pytest.mark.long
def test_missing_libraries_are_reported_at_start(make_lab: Make, tmp_path: Path) -> None:
    openssl = own_openssl.build_openssl(tmp_path / "openssl", "bin/openssl", "elsewhere")
    with MuxerProcess(write_config(make_lab(), str(openssl), NO_SUCH_CALL)) as muxer:
        assert muxer.wait(60) == 2
    assert "[processing] openssl: cannot be used: " in muxer.err and "libssl.so.9" in muxer.err
    assert "put them beside it (the same folder, ../lib or ../lib64), or name their folder in LD_LIBRARY_PATH" in muxer.err
