"""What a media file really holds: its streams and the time of every packet, read with one ffprobe process.

Metadata of recordings and of containers are not trusted: durations come from the packets.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import IO

from muxer.errors import Code, MediaError, ToolError
from muxer.media import limits
from muxer.media.media_info import Audio, Fields, MediaInfo, Packets, Video, parse_ticks
from muxer.media.mp4 import printed_numbers, read_orientation
from muxer.system.process import Runner

FFPROBE_TIMEOUT_SECONDS = 600.0
# Encoders of audio put less than this before it, in microseconds: that is no start offset of the video.
MIN_START_OFFSET_US = 200_000
# A number of ticks that no recording has, and that can still be added up.
MAX_TICKS = 1 << 56
_SHOW_ENTRIES = (
    "packet=stream_index,pts,dts,duration,flags:packet_side_data=side_data_type,discard_padding"
    ":stream=index,codec_type,codec_name,profile,width,height,pix_fmt,color_range,sample_aspect_ratio,time_base"
    ",r_frame_rate,avg_frame_rate,has_b_frames,sample_rate,channels,duration_ts:stream_disposition=attached_pic"
    ":stream_side_data=side_data_type,displaymatrix:format=format_name,start_time,nb_streams"
)
# What ffprobe prints of one packet or stream has some hundred characters.
_MAX_LINE_BYTES = 65_536
# What ffprobe says of a file whose form is not among those of ours (limits.FORMATS).
_REFUSED_FORMAT = re.compile(r"\[(\w+) @ \w+\] Format not on whitelist")


def probe_file(path: Path, ffprobe: str, runner: Runner) -> MediaInfo:
    """Given the path of a media file, return what it holds.

    Raise :class:`MediaError` when it is empty, is no media file, or is truncated.
    """
    if path.stat().st_size == 0:
        raise MediaError("the file is empty", code=Code.EMPTY_FILE)
    command = [ffprobe, "-v", "error", *limits.reading_options(), "-show_entries", _SHOW_ENTRIES]
    command += ["-of", "compact", "-i", f"file:{path}"]
    try:
        return runner.run_streaming(command, lambda out: parse_ffprobe(path, out), timeout=FFPROBE_TIMEOUT_SECONDS)
    except ToolError as error:
        form = _REFUSED_FORMAT.search(str(error))
        reason = f"the form {form[1]} is not supported" if form else str(error)
        raise MediaError(f"the file is no readable media file: {reason}", code=Code.NO_MEDIA) from error


def parse_ffprobe(path: Path, out: IO[bytes]) -> MediaInfo:
    """Given a path and what ffprobe prints of the file there, return what it holds. Raise :class:`MediaError` when it is
    truncated, has too much in it, or nothing that makes sense."""
    try:
        return _build_media_info(path, *_parse_output(out))
    except (ValueError, KeyError, ArithmeticError) as error:
        what = f"{type(error).__name__}: {error}"[:200]
        raise MediaError(f"ffprobe says of the file what makes no sense: {what}", code=Code.NO_MEDIA) from error


def _parse_output(out: IO[bytes]) -> tuple[dict[int, Packets], list[Fields], Fields]:
    packets: dict[int, Packets] = {}
    streams: list[Fields] = []
    container: Fields = {}
    count = 0
    for line in iter(lambda: out.readline(_MAX_LINE_BYTES).decode(errors="replace"), ""):
        kind, _, rest = line.rstrip("\n").partition("|")
        entry = dict(_parse_field(part) for part in rest.split("|") if "=" in part)
        if kind == "packet":
            count += 1
            limits.check_frames(count)
            packets.setdefault(int(entry["stream_index"]), Packets()).add_packet(entry)
        elif kind == "stream":
            streams.append(entry)
        elif kind == "format":
            container = entry
    return packets, streams, container


def _parse_field(part: str) -> tuple[str, str]:
    """Return name and value of a field. Since ffmpeg 7.1 side data have their kind before the name, up to a colon; the names
    of dispositions have one, too."""
    name, value = part.split("=", 1)
    return name.rpartition(":")[2] if name.startswith("side_dat") else name, value


def _build_media_info(path: Path, packets: dict[int, Packets], streams: list[Fields], container: Fields) -> MediaInfo:
    start = container.get("start_time", "N/A")
    start_us = 0 if start == "N/A" else round(Fraction(start) * 1_000_000)
    video = audio = None
    lost_us, name = 0, container.get("format_name", "")
    edited = "mp4" in name
    for entry in streams:
        held = packets.get(int(entry["index"]), Packets())
        picture = entry.get("codec_type") == "video" and entry.get("disposition:attached_pic") != "1"
        if picture and not held.pts and held.packets_without_time:
            what = f"the form {name} is not supported: it does not say when any of its frames is shown"
            raise MediaError(what, code=Code.NO_FRAME_TIMES)
        if picture and video is None and held.pts:
            video, lost_us = _read_video(entry, held, name)
        elif entry.get("codec_type") == "audio" and audio is None and held.pts:
            audio = Audio(entry, held, start_us)
            _require_positive(audio.time_base, int(entry["sample_rate"]))
    late = video.ticks_to_us(video.first_pts) - lost_us - start_us if video and audio else 0
    late = late if late >= MIN_START_OFFSET_US else 0
    empty = start_us if edited and audio is None and start_us >= MIN_START_OFFSET_US else 0
    return MediaInfo(path, name, start_us, len(streams), video, audio, audio_only_us=late, empty_us=empty, lost_us=lost_us)


def _read_video(entry: Fields, packets: Packets, container: str) -> tuple[Video, int]:
    """Return a video stream, and how much of its beginning cannot be decoded, in microseconds."""
    # A keyframe that an edit list hides is decoded all the same, and so are packets without a time.
    begin = min(packets.pts)
    if 1 in packets.keys and not packets.hidden_keys and not packets.packets_without_time:
        packets = packets.from_keyframe(packets.keys.index(1))
    video = Video(entry, packets, orientation=read_orientation(printed_numbers(entry.get("displaymatrix", ""))))
    _require_positive(video.time_base, 1 + min(video.display_size))
    if "avi" in container:
        _hold_last_frame(video)
    return video, video.ticks_to_us(video.first_pts - begin)


def _require_positive(*numbers: Fraction | int) -> None:
    """Raise ``ValueError`` when a number, by which all that follows is reckoned, is not above zero."""
    if min(numbers) <= 0:
        raise ValueError("a time base, size or sample rate that is none")


def _hold_last_frame(video: Video) -> None:
    """Hold the last frame of an AVI file until its end: an empty chunk, which is no packet, repeats the frame before it."""
    packets, end = video.packets, parse_ticks(video.entry.get("duration_ts")) or 0
    last = max(range(len(packets.pts)), key=packets.pts.__getitem__)
    packets.durations[last] = max(packets.durations[last], min(end, MAX_TICKS) - packets.pts[last])
