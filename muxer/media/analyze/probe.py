"""Read with ffprobe the streams of a media file and the time of every packet: durations come from the packets."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import IO

from muxer.errors import Code, MediaError, ToolError
from muxer.media import limits
from muxer.media.media_info import Audio, Fields, MediaInfo, Packets, Video, parse_ticks
from muxer.media.mp4 import printed_numbers, read_orientation
from muxer.system.process import Runner

FFPROBE_TIMEOUT_SECONDS = 600.0
# Audio encoders add less than this before the audio: a smaller offset of the video does not count.
MIN_START_OFFSET_US = 200_000
# No recording has more ticks; sums of them still fit into 64 bits.
MAX_TICKS = 1 << 56
_SHOW_ENTRIES = (
    "packet=stream_index,pts,dts,duration,flags:packet_side_data=side_data_type,discard_padding"
    ":stream=index,codec_type,codec_name,profile,width,height,pix_fmt,color_range,sample_aspect_ratio,time_base"
    ",r_frame_rate,avg_frame_rate,has_b_frames,sample_rate,channels,duration_ts:stream_disposition=attached_pic"
    ":stream_side_data=side_data_type,displaymatrix:format=format_name,start_time,nb_streams"
)
_MAX_LINE_BYTES = 65_536
# The message of ffprobe for a container that is not in limits.INPUT_FORMATS.
_REFUSED_FORMAT = re.compile(r"\[(\w+) @ \w+\] Format not on whitelist")


def probe_file(path: Path, ffprobe: str, runner: Runner) -> MediaInfo:
    """Return what the media file at `path` contains. Raises MediaError when it is empty, truncated or none."""
    if path.stat().st_size == 0:
        raise MediaError("the file is empty", code=Code.EMPTY_FILE)
    command = [ffprobe, "-v", "error", *limits.reading_options(), "-show_entries", _SHOW_ENTRIES]
    command += ["-of", "compact", "-i", f"file:{path}"]
    try:
        return runner.run_streaming(command, lambda out: parse_ffprobe(path, out), timeout=FFPROBE_TIMEOUT_SECONDS)
    except ToolError as error:
        refused = _REFUSED_FORMAT.search(str(error))
        reason = f"the format {refused[1]} is not supported" if refused else str(error)
        raise MediaError(f"the file is not a readable media file: {reason}", code=Code.NO_MEDIA) from error


def parse_ffprobe(path: Path, out: IO[bytes]) -> MediaInfo:
    """Parse the output of ffprobe. Raises MediaError when the file is truncated, inconsistent or too long."""
    try:
        return _build_media_info(path, *_parse_output(out))
    except (ValueError, KeyError, ArithmeticError) as error:
        problem = f"{type(error).__name__}: {error}"[:200]
        raise MediaError(f"ffprobe returns inconsistent data for the file: {problem}", code=Code.NO_MEDIA) from error


def _parse_output(out: IO[bytes]) -> tuple[dict[int, Packets], list[Fields], Fields]:
    packets: dict[int, Packets] = {}
    # ffprobe also prints the streams of each program of a transport stream.
    streams: dict[int, Fields] = {}
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
            streams[int(entry["index"])] = entry
        elif kind == "format":
            container = entry
    return packets, [streams[index] for index in sorted(streams)], container


def _parse_field(part: str) -> tuple[str, str]:
    """Return name and value of a field; side data (ffmpeg 7.1) and dispositions have a prefix."""
    name, value = part.split("=", 1)
    return name.rpartition(":")[2] if name.startswith("side_dat") else name, value


def _build_media_info(path: Path, packets: dict[int, Packets], streams: list[Fields], container: Fields) -> MediaInfo:
    start = container.get("start_time", "N/A")
    start_us = 0 if start == "N/A" else round(Fraction(start) * 1_000_000)
    video = audio = None
    audio_packets: list[Packets] = []
    lost_us, name = 0, container.get("format_name", "")
    edited = "mp4" in name
    for entry in streams:
        stream_packets = packets.get(int(entry["index"]), Packets())
        is_video = entry.get("codec_type") == "video" and entry.get("disposition:attached_pic") != "1"
        if is_video and not stream_packets.pts and stream_packets.packets_without_time:
            problem = f"the format {name} is not supported: it contains no presentation times"
            raise MediaError(problem, code=Code.NO_FRAME_TIMES)
        if is_video and video is None and stream_packets.pts:
            video, lost_us = _read_video(entry, stream_packets, name)
        elif entry.get("codec_type") == "audio":
            audio_packets.append(stream_packets)
            if audio is None and stream_packets.pts:
                audio = Audio(entry, stream_packets, start_us, len(audio_packets) - 1)
                _require_positive(audio.time_base, int(entry["sample_rate"]))
    late = video.ticks_to_us(video.first_pts) - lost_us - start_us if video and audio else 0
    late = late if late >= MIN_START_OFFSET_US else 0
    empty = start_us if edited and audio is None and start_us >= MIN_START_OFFSET_US else 0
    audio_count = sum(bool(one.pts) for one in audio_packets)
    found = MediaInfo(path, name, start_us, len(streams), video, audio, audio_count=audio_count)
    return replace(found, audio_only_us=late, empty_us=empty, lost_us=lost_us)


def _read_video(entry: Fields, packets: Packets, container: str) -> tuple[Video, int]:
    """Return a video stream, and how much of its beginning cannot be decoded, in microseconds."""
    # Decoders also decode a keyframe that an edit list hides, and packets without a time.
    begin = min(packets.pts)
    if 1 in packets.keys and not packets.hidden_keys and not packets.packets_without_time:
        packets = packets.from_keyframe(packets.keys.index(1))
    video = Video(entry, packets, orientation=read_orientation(printed_numbers(entry.get("displaymatrix", ""))))
    _require_positive(video.time_base, 1 + min(video.display_size))
    if "avi" in container:
        _hold_last_frame(video)
    return video, video.ticks_to_us(video.first_pts - begin)


def _require_positive(*numbers: Fraction | int) -> None:
    """Raise ValueError when a number that later calculations divide by is not positive."""
    if min(numbers) <= 0:
        raise ValueError("a time base, size or sample rate is zero")


def _hold_last_frame(video: Video) -> None:
    """Show the last frame of an AVI file until its end: an empty chunk, which is no packet, repeats the frame before it."""
    packets, end = video.packets, parse_ticks(video.entry.get("duration_ts")) or 0
    last = max(range(len(packets.pts)), key=packets.pts.__getitem__)
    packets.durations[last] = max(packets.durations[last], min(end, MAX_TICKS) - packets.pts[last])
