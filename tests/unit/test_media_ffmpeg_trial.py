"""The check of ffmpeg and ffprobe at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from muxer.errors import MuxerError, ToolError
from muxer.media.ffmpeg_trial import find_keep_times, try_ffprobe
from muxer.system.process import Runner
from tests.support.fake_program import write_lacking
from tests.support.tiers import spread_variants

pytestmark = [pytest.mark.servers, pytest.mark.machine_ffmpeg]

# A build without one feature: real ffmpeg without one argument.
LACKING = {
    "the encoder": ("libx264", "Unknown encoder", "no libx264 encoder"),
    "a filter": ("pad=", "nopad=", "lacks nopad"),
    "an option": ("-noautorotate", "-nosuchoption", "lacks nosuchoption"),
    "a muxer": ("framecrc", "nosuchform", "lacks nosuchform"),
    "a filter of audio": ("ashowinfo", "nosuchfilter", "lacks nosuchfilter"),
    "an encoder of audio": ("aac", "nosuchaac", "lacks nosuchaac"),
}


def test_the_installed_ffmpeg_has_all_required_features() -> None:
    assert find_keep_times(Runner(), "ffmpeg")[1] == "passthrough"


@pytest.mark.parametrize("name", spread_variants(LACKING, 3))
def test_a_build_without_a_required_feature_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    word, other, message = LACKING[name]
    with pytest.raises(MuxerError, match=message):
        find_keep_times(Runner(), str(write_lacking(tmp_path, "ffmpeg", word, other)))


def test_an_option_with_an_older_name_is_found(tmp_path: Path) -> None:
    present, _ = find_keep_times(Runner(), "ffmpeg")
    program = tmp_path / "ffmpeg"
    names = f"case $word in -fps_mode) word=-nosuchoption ;; -vsync) word={present} ;; esac"
    program.write_text(f'#!/bin/bash\nfor word; do {names}; words+=("$word"); done\nexec ffmpeg "${{words[@]}}"\n')
    program.chmod(0o755)
    assert find_keep_times(Runner(), str(program)) == ("-vsync", "passthrough")


def test_a_program_that_writes_nothing_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho ffmpeg version 6.0 with libx264\n")
    program.chmod(0o755)
    with pytest.raises(MuxerError, match="does not write the expected frames"):
        find_keep_times(Runner(), str(program))


def test_a_program_that_does_not_run_is_reported(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(ToolError, match="broken"):
        find_keep_times(Runner(), str(program))


def test_the_installed_ffprobe_has_all_required_features() -> None:
    try_ffprobe(Runner(), "ffprobe")


def test_an_ffprobe_without_a_required_feature_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(MuxerError, match=r"this ffprobe lacks nosuchoption; install a build of version 4\.2 or later"):
        try_ffprobe(Runner(), str(write_lacking(tmp_path, "ffprobe", "-show_entries", "-nosuchoption")))


def test_an_ffprobe_that_prints_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MuxerError, match=r"this ffprobe cannot do what is needed: .+ inconsistent data"):
        try_ffprobe(Runner(), str(write_lacking(tmp_path, "ffprobe", "packet=", "frame=")))


def test_an_ffprobe_without_a_section_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(MuxerError, match="this ffprobe lacks nosuchpart"):
        try_ffprobe(Runner(), str(write_lacking(tmp_path, "ffprobe", "packet_side_data=", "nosuchpart=")))
