"""Source files of many kinds, created from two short screens and one call with the lab's time code."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lab.media import make_audio, make_screen

T0 = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
CALL_SECONDS = 6.0
SCREEN_SECONDS = 4.0
# The starts of the two screens relative to the audio: the first is cut at its start, the second at its end.
SCREEN_STARTS = (-1.55, 3.2)
SIZE = (320, 180)
PLAIN = ("-c:v", "libx264", "-threads", "1", "-preset", "veryfast", "-g", "20", "-bf", "0")
B_FRAMES = ("-c:v", "libx264", "-threads", "1", "-preset", "veryfast", "-g", "20", "-bf", "3", "-b_strategy", "0")


def run_program(*arguments: object) -> str:
    """Run a program; return its output."""
    # A static build crashes when it loads the character converters of another C library, for the names in MPEG-TS.
    environment = {**os.environ, "GCONV_PATH": ""}
    command = [*map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def run_ffmpeg(*arguments: object) -> None:
    run_program("ffmpeg", "-nostdin", "-v", "error", "-y", *arguments)


@dataclass(frozen=True)
class ScreenKind:
    """How to create a screen file of a kind from a copyable one: ffmpeg's output options and the suffix.

    `second` are the options of the second screen where they differ, `fps` is the frame rate. `steps` are further commands,
    each with the suffix of its output and its options before and after ``-i``. `skips` is how much of the screen is not
    visible. `proof` is text in the output of ffprobe for the first file.
    """

    options: Sequence[str]
    ending: str = "mp4"
    second: Sequence[str] | None = None
    fps: int = 10
    steps: Sequence[tuple[str, Sequence[str], Sequence[str]]] = ()
    skips: float = 0.0
    proof: str = ""


WIDE = (*PLAIN, "-threads", "2", "-preset", "ultrafast", "-g", "4")
COPY = ("-c", "copy")
KINDS = {
    "plain": ScreenKind(PLAIN, proof="has_b_frames=0"),
    "index in front": ScreenKind((*PLAIN, "-movflags", "+faststart")),
    "B-frames at both cuts": ScreenKind(B_FRAMES, proof="has_b_frames=2"),
    "B-frames without edit list": ScreenKind((*B_FRAMES, "-use_editlist", "0"), proof="start_time=0.200000"),
    "B-frames with negative shifts": ScreenKind((*B_FRAMES, "-movflags", "+negative_cts_offsets")),
    "open groups of pictures": ScreenKind((*B_FRAMES, "-x264-params", "open-gop=1:scenecut=0")),
    "open groups, B-frames at two frames per second": ScreenKind(
        (*B_FRAMES, "-g", "4", "-x264-params", "open-gop=1:scenecut=0"), fps=2, proof="(flags=K_(?s:.)*){2}"
    ),
    "no keyframe but an intra refresh": ScreenKind(
        (*PLAIN, "-g", "10", "-x264-params", "intra-refresh=1"), proof="(flags=K_(?s:.)*){3}"
    ),
    "one keyframe only": ScreenKind((*PLAIN, "-g", "1000"), proof="(?s)^[^K]*flags=K[^K]*$"),
    "intra only": ScreenKind((*PLAIN, "-g", "1"), proof="(flags=K_.*\\n.*){40}"),
    "mixed parameter sets": ScreenKind((*PLAIN, "-refs", "1"), second=(*PLAIN, "-x264-params", "cqm=jvt:ref=4:cabac=1")),
    "plain and B-frames": ScreenKind(PLAIN, second=B_FRAMES),
    "full range": ScreenKind((*PLAIN, "-vf", "scale=out_range=full", "-pix_fmt", "yuvj420p"), proof="yuvj420p"),
    "H.264 and H.265": ScreenKind(
        PLAIN, second=("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
    ),
    "H.265": ScreenKind(("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"), proof="hevc"),
    "VP9 in WebM": ScreenKind(
        ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20"), "webm", proof="vp9"
    ),
    "VP9, odd size": ScreenKind(
        ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-vf", "scale=321:181"),
        "webm",
        proof="width=321.height=181",
    ),
    "yuv444": ScreenKind((*PLAIN, "-pix_fmt", "yuv444p"), proof="yuv444p"),
    "yuv444, odd size": ScreenKind((*PLAIN, "-vf", "scale=321:181", "-pix_fmt", "yuv444p"), proof="width=321.height=181"),
    "interlaced": ScreenKind((*PLAIN, "-flags", "+ildct+ilme", "-x264-params", "tff=1"), proof="field_order=tt"),
    "pixels that are not square": ScreenKind((*PLAIN, "-vf", "setsar=4/3"), proof="aspect_ratio=4:3"),
    "3840x1080": ScreenKind((*WIDE, "-vf", "scale=3840:1080"), fps=2, proof="width=3840.height=1080"),
    "3840x2160": ScreenKind((*WIDE, "-vf", "scale=3840:2160"), fps=2, proof="width=3840.height=2160"),
    "7680x2160": ScreenKind((*WIDE, "-vf", "scale=7680:2160"), fps=2, proof="width=7680.height=2160"),
    "25 frames a second": ScreenKind(PLAIN, fps=25, proof="pts_time=0.04"),
    "raw H.264 in Matroska": ScreenKind((*PLAIN, "-f", "h264"), "h264", steps=[("mkv", ("-framerate", "10"), COPY)]),
    "B-frames in AVI, no presentation times": ScreenKind(B_FRAMES, "avi", proof="pts_time=N/A.dts_time=0"),
    "MPEG-TS": ScreenKind(B_FRAMES, "ts", proof="start_time=1.6"),
    "MPEG-TS across the end of its clock": ScreenKind(
        (*B_FRAMES, "-output_ts_offset", "95441"), "ts", proof="pts_time=-1.3"
    ),
    "Matroska with a start offset": ScreenKind((*B_FRAMES, "-output_ts_offset", "7"), "mkv", proof="start_time=7"),
    "Matroska with negative times": ScreenKind(
        (*PLAIN, "-output_ts_offset", "-1", "-avoid_negative_ts", "disabled"), "mkv", proof="pts_time=N/A"
    ),
    "Matroska with negative times, B-frames": ScreenKind(
        (*B_FRAMES, "-output_ts_offset", "-0.35", "-avoid_negative_ts", "disabled"), "mkv", proof="pts_time=N/A"
    ),
    "MP4 with a start offset": ScreenKind(
        B_FRAMES, steps=[("late.mp4", ("-itsoffset", "1.5"), COPY)], proof="start_time=1.5"
    ),
    "MP4 that hides its first frames": ScreenKind(
        B_FRAMES,
        steps=[("cut.mp4", ("-ss", "0.5"), (*COPY, "-avoid_negative_ts", "disabled"))],
        skips=0.5,
        proof="flags=KD",
    ),
    "fragmented": ScreenKind((*B_FRAMES, "-movflags", "frag_keyframe+empty_moov+default_base_moof"), proof="start_time=0.2"),
}


def make_screens(folder: Path, bases: Sequence[Path], kind: ScreenKind) -> list[Path]:
    """Create the two screen files of a kind from two copyable ones."""
    paths = []
    for number, base in enumerate(bases):
        options = kind.second if number and kind.second is not None else kind.options
        path = folder / f"screen-{number}.{kind.ending}"
        run_ffmpeg("-i", base, *options, path)
        for ending, before, after in kind.steps:
            path, source = folder / f"screen-{number}.{ending}", path
            run_ffmpeg(*before, "-i", source, *after, path)
        paths.append(path)
    return paths


def make_bases(folder: Path, fps: int) -> list[Path]:
    """Create two screens of different agents that start as the layout defines."""
    paths = []
    for number, begin in enumerate(SCREEN_STARTS):
        path = folder / f"base-{fps}-{number}.mp4"
        start = T0 + timedelta(seconds=begin)
        make_screen(path, start, SCREEN_SECONDS, fps=fps, size=SIZE, agent_number=number + 1, extra=("-qp", "10"))
        paths.append(path)
    return paths


@dataclass(frozen=True)
class AudioKind:
    """How to create a call's audio of a kind: the suffix, the channels and ffmpeg's options.

    `codec` is the codec in the result."""

    ending: str
    options: Sequence[str]
    channels: int
    codec: str


GAP_FILTER = ("-af", "aselect='not(between(t,3.3,3.8))'")
AUDIO_KINDS = {
    "MP3, mono, 8 kHz": AudioKind("mp3", ("-ac", "1", "-ar", "8000"), 1, "mp3"),
    "MP3, stereo, 8 kHz": AudioKind("mp3", ("-ar", "8000"), 2, "mp3"),
    "MP3, mono, 16 kHz": AudioKind("mp3", ("-ac", "1", "-ar", "16000"), 1, "mp3"),
    "MP3, stereo, 16 kHz": AudioKind("mp3", ("-ar", "16000"), 2, "mp3"),
    "MP3, mono, 44.1 kHz": AudioKind("mp3", ("-ac", "1"), 1, "mp3"),
    "MP3, stereo, 44.1 kHz": AudioKind("mp3", (), 2, "mp3"),
    "MP3, variable bit rate": AudioKind("mp3", ("-q:a", "4"), 2, "mp3"),
    "MP3 without LAME tag": AudioKind("mp3", ("-write_xing", "0"), 2, "mp3"),
    "MP2": AudioKind("mp2", (), 2, "aac"),
    "WAV, PCM, 8 kHz": AudioKind("wav", ("-ar", "8000", "-c:a", "pcm_s16le"), 2, "aac"),
    "WAV, mulaw": AudioKind("wav", ("-ac", "1", "-ar", "8000", "-c:a", "pcm_mulaw"), 1, "aac"),
    "WAV, ADPCM": AudioKind("wav", ("-ac", "1", "-c:a", "adpcm_ima_wav"), 1, "aac"),
    "Opus in Ogg": AudioKind("ogg", ("-c:a", "libopus", "-ar", "48000"), 2, "opus"),
    "FLAC": AudioKind("flac", (), 2, "flac"),
    "AAC in MP4": AudioKind("m4a", ("-c:a", "aac"), 2, "aac"),
    "AAC in ADTS": AudioKind("aac", ("-c:a", "aac"), 2, "aac"),
    "MP3 with a gap": AudioKind("mka", ("-c:a", "libmp3lame", *GAP_FILTER), 2, "aac"),
    "AAC in MP4 with a gap": AudioKind("mp4", ("-c:a", "aac", *GAP_FILTER), 2, "aac"),
    "PCM with a gap": AudioKind("mkv", ("-c:a", "pcm_s16le", *GAP_FILTER), 2, "aac"),
}


def make_call(path: Path) -> None:
    """Create the uncompressed audio of the call."""
    make_audio(path, T0, CALL_SECONDS, rate=44100, codec=("-c:a", "pcm_s16le"))


def describe_file(path: Path) -> str:
    """Return the output of ffprobe for a file and each of its packets."""
    entries = "packet=pts_time,dts_time,flags:format=start_time"
    entries += ":stream=codec_name,width,height,has_b_frames,sample_aspect_ratio,pix_fmt,field_order"
    return run_program("ffprobe", "-v", "error", "-show_entries", entries, "-of", "compact", path)
