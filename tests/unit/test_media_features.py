"""What is found out about an ffmpeg at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from muxer.errors import MuxerError, ToolError
from muxer.media.features import find_keep_times
from muxer.process import Runner

# A build that lacks something: real ffmpeg, but for one word of its command line.
LACKING = {
    "the encoder": ("libx264", "Unknown encoder", "no libx264 encoder"),
    "a filter": ("pad=", "nopad=", "lacks nopad"),
    "an option": ("-noautorotate", "-nosuchoption", "lacks nosuchoption"),
    "a muxer": ("framecrc", "nosuchform", "lacks nosuchform"),
}


def wrapped(folder: Path, word: str, other: str) -> str:
    """Return an ffmpeg that takes another word for one, and does not list it."""
    path = folder / "ffmpeg"
    path.write_text(
        "#!/bin/bash\n"
        f'for word; do words+=("${{word//{word}/{other}}}"); done\n'
        f'ffmpeg "${{words[@]}}" > >(grep -v -- {word})\nstatus=$?\nwait\nexit $status\n'
    )
    path.chmod(0o755)
    return str(path)


def test_the_installed_ffmpeg_can_do_all() -> None:
    assert find_keep_times(Runner(), "ffmpeg")[1] == "passthrough"


@pytest.mark.parametrize("name", LACKING)
def test_a_build_that_lacks_something_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    word, other, message = LACKING[name]
    with pytest.raises(MuxerError, match=message):
        find_keep_times(Runner(), wrapped(tmp_path, word, other))


def test_an_option_with_an_older_name_is_found(tmp_path: Path) -> None:
    program = wrapped(tmp_path, "-fps_mode", "-nosuchoption")
    assert find_keep_times(Runner(), program) == ("-vsync", "passthrough")


def test_a_program_that_writes_nothing_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho ffmpeg version 6.0 with libx264\n")
    program.chmod(0o755)
    with pytest.raises(MuxerError, match="does not write what it should"):
        find_keep_times(Runner(), str(program))


def test_a_program_that_does_not_run_is_told(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(ToolError, match="broken"):
        find_keep_times(Runner(), str(program))
