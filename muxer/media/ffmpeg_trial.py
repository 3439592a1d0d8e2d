"""Check by a small trial of every option, filter and codec what an ffmpeg supports: version numbers prove nothing."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

from muxer.errors import MediaError, MuxerError, ToolError
from muxer.media.analyze.audio_decode import decode_audio
from muxer.media.analyze.probe import probe_file
from muxer.media.ffmpeg import (
    PROGRESS_OPTIONS,
    QUIET_OPTIONS,
    TOLERANT_OPTIONS,
    MediaTools,
    VideoTarget,
    encoder_options,
    fit_filters,
    input_options,
)
from muxer.media.media_info import Packets, Video, require_audio
from muxer.media.mp4 import TIMESCALE, Orientation
from muxer.media.plan.commands import FRAME_FILE_SUFFIX, check_command, comparison_filters
from muxer.system.files import temporary_folder
from muxer.system.process import Runner

TRIAL_TIMEOUT_SECONDS = 20.0
# The option that keeps all frame times, by its name since ffmpeg 5.1 and before.
KEEP_TIMES_OPTIONS = (("-fps_mode", "passthrough"), ("-vsync", "passthrough"))
_TRIAL_SIZE = (16, 16)
_TRIAL_TARGET = VideoTarget(32, 32, "yuv420p", "high", Fraction(10))
# A frame of silence: MPEG-2.5, layer III, 8 kHz, 8 kbit/s, mono.
_SILENT_FRAME = b"\xff\xe3\x18\xc4" + bytes(68)
_SILENT_FRAMES = 8
_ADVICE = "install a build of version 4.2 or later"
_LACK_PATTERNS = (
    r"Unknown encoder '([^']+)'",
    r"Unknown decoder '([^']+)'",
    r"No such filter: '([^']+)'",
    r"Unrecognized option '([^']+)'",
    r"Option '?([\w-]+)'? not found",
    r"for option '([^']+)': Option not found",
    r"No match for section '([^']+)'",
    r"Requested output format '([^']+)' is not",
    r"Unknown bitstream filter:? '?(\w+)",
)
_QUARTER_TURN = Orientation(0, 1, -1, 0)


def find_keep_times(runner: Runner, ffmpeg: str) -> tuple[str, str]:
    """Return the option that keeps all frame times, after a trial. Raises MuxerError that names what is lacking."""
    refusals = []
    with temporary_folder("muxer-trial-") as folder:
        for words in KEEP_TIMES_OPTIONS:
            try:
                _run_trial(runner, MediaTools(ffmpeg, "", words), folder)
                return words
            except (ToolError, MediaError) as error:
                refusals.append(str(error))
    if "libx264" not in runner.run([ffmpeg, "-hide_banner", "-encoders"], timeout=TRIAL_TIMEOUT_SECONDS).decode(
        errors="replace"
    ):
        raise MuxerError(f"this ffmpeg has no libx264 encoder; {_ADVICE} with it")
    # One of the two may be about that option only.
    refusal = next((text for text in refusals if missing_feature(text) not in ("fps_mode", "vsync")), refusals[-1])
    raise _trial_error("ffmpeg", refusal, f"{_ADVICE} with libx264")


def try_ffprobe(runner: Runner, ffprobe: str) -> None:
    """Probe a small file like a source. Raises MuxerError that names what this build of `ffprobe` lacks."""
    with temporary_folder("muxer-trial-") as folder:
        silence = folder / "silence.mp3"
        silence.write_bytes(_SILENT_FRAME * _SILENT_FRAMES)
        try:
            packets = len(require_audio(probe_file(silence, ffprobe, runner)).packets.pts)
        except MediaError as error:
            raise _trial_error("ffprobe", str(error), _ADVICE) from error
    if packets != _SILENT_FRAMES:
        raise _trial_error("ffprobe", f"it finds {packets} packets of {_SILENT_FRAMES}", _ADVICE)


def missing_feature(message: str) -> str:
    """Return what ffmpeg lacks by its error `message`; empty when it does not state it."""
    for pattern in _LACK_PATTERNS:
        if (found := re.search(pattern, message)) is not None:
            return found[1]
    return ""


def _trial_error(name: str, refusal: str, advice: str) -> MuxerError:
    named = missing_feature(refusal)
    what = f"lacks {named}" if named else f"cannot do what is needed: {refusal}"
    return MuxerError(f"this {name} {what}; {advice}")


def _run_trial(runner: Runner, tools: MediaTools, folder: Path) -> None:
    silence, output = folder / "silence.mp3", folder / "made.mp4"
    silence.write_bytes(_SILENT_FRAME * _SILENT_FRAMES)
    runner.run(trial_command(tools, _TRIAL_TARGET, silence, output), timeout=TRIAL_TIMEOUT_SECONDS)
    printed = runner.run(check_command(tools, output, output, 0, [0], _TRIAL_SIZE), timeout=TRIAL_TIMEOUT_SECONDS)
    streams, frames = {line[:2] for line in printed.splitlines()}, output.with_suffix(FRAME_FILE_SUFFIX)
    if not {b"0,", b"1,", b"2,"} <= streams or frames.stat().st_size != _TRIAL_SIZE[0] * _TRIAL_SIZE[1] * 3 // 2:
        raise ToolError("it does not write the expected frames")
    decode_audio(tools, runner, output)


def trial_command(tools: MediaTools, target: VideoTarget, silence: Path, output: Path) -> list[str]:
    """Return the command that encodes half a second with all that is used. `silence` is an MP3 file."""
    video = Video({"width": "16", "height": "16", "sample_aspect_ratio": "2:1"}, Packets(), orientation=_QUARTER_TURN)
    filters = [f"settb=1/{TIMESCALE}", "trim=start=0.05", "setpts=gt(PTS\\,0)*(PTS-0.05/TB)"]
    filters += [f"select=between(pts\\,0\\,{TIMESCALE})", *fit_filters(video, target), "hflip", "vflip"]
    filters += comparison_filters((target.width, target.height))
    command = [tools.ffmpeg, *QUIET_OPTIONS, *PROGRESS_OPTIONS, *TOLERANT_OPTIONS, "-copyts", "-noautorotate"]
    command += ["-f", "lavfi", "-i", "color=s=16x16:r=10:d=0.5", *input_options(silence)]
    command += ["-map", "0:v:0", "-map", "1:a:0", "-vf", ",".join(filters)]
    encoder = [word for word in encoder_options(tools, target) if word != "-an"]
    return [*command, "-c:a", "aac", "-ar", "8000", "-ac", "1", *encoder, str(output)]
