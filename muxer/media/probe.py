"""What a media file really holds: its streams and the time of every packet, read with one ffprobe process.

Metadata of recordings and of containers are not trusted: durations come from the packets.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import IO

from muxer.errors import Code, MediaError, ToolError
from muxer.media import limits
from muxer.media.mp4.avc import AvcConfig
from muxer.media.orientation import UPRIGHT, Orientation, printed_numbers, read_orientation
from muxer.system.process import Runner

FFPROBE_TIMEOUT_SECONDS = 600.0
# A frame rate outside this range is the container's fancy; what stands for it then (our decision).
MIN_RATE, MAX_RATE, DEFAULT_RATE = Fraction(1), Fraction(60), Fraction(10)
# So are pixels that are longer than this.
MAX_ASPECT = Fraction(4)
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

Fields = dict[str, str]


@dataclass
class Packets:
    """The packets of one stream in decoding order; times in ticks of the stream's time base.

    ``sizes`` and ``offsets`` tell where their bytes lie in the file, if that is known. ``unshown`` are those of which the
    file does not say when they are shown; ``timeless`` is how many of them are left out here, for want of any time.
    ``changes`` is how often other parameters begin that stand outside of the packets.
    """

    pts: array[int] = field(default_factory=lambda: array("q"))
    dts: array[int] = field(default_factory=lambda: array("q"))
    durations: array[int] = field(default_factory=lambda: array("q"))
    keys: bytearray = field(default_factory=bytearray)
    sizes: array[int] = field(default_factory=lambda: array("I"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    hidden: int = 0
    hidden_keys: int = 0
    changes: int = 0
    packets_without_pts: int = 0
    packets_without_time: int = 0
    discarded_samples: int = 0

    def add_packet(self, entry: Fields) -> None:
        """Take in one packet as ffprobe prints it. One without any time, and one that an edit list hides, are only
        counted."""
        flags, shown, decoded = entry.get("flags", ""), _parse_ticks(entry.get("pts")), _parse_ticks(entry.get("dts"))
        if shown is None:
            self.packets_without_pts += 1
            shown = decoded
        if shown is None:
            self.packets_without_time += 1
            return
        if "D" in flags:
            self.hidden += 1
            self.hidden_keys += "K" in flags
            return
        self.pts.append(shown)
        self.dts.append(shown if decoded is None else decoded)
        self.durations.append(_parse_ticks(entry.get("duration")) or 0)
        self.keys.append("K" in flags)
        self.changes += entry.get("side_data_type") == "New Extradata"
        if "discard_padding" in entry:
            self.discarded_samples = int(entry["discard_padding"])

    def select_packets(self, numbers: Sequence[int]) -> Packets:
        """Return the packets with these numbers, in the same order."""
        return replace(
            self,
            pts=_pick_values(self.pts, numbers),
            dts=_pick_values(self.dts, numbers),
            durations=_pick_values(self.durations, numbers),
            keys=bytearray(self.keys[number] for number in numbers),
            sizes=_pick_values(self.sizes, numbers),
            offsets=_pick_values(self.offsets, numbers),
        )

    def from_keyframe(self, start: int) -> Packets:
        """Return the packets without those that need frames from before the file's begin.

        ``start`` is the number of the first packet at which decoding may begin. Those before it go, and those after it that
        are shown before it.
        """
        first = self.pts[start]
        if not start and first == min(self.pts):
            return self
        return self.select_packets([number for number in range(start, len(self.pts)) if self.pts[number] >= first])


def _pick_values(values: array[int], numbers: Sequence[int]) -> array[int]:
    """Return the values with these numbers; there may be none at all."""
    return array(values.typecode, (values[number] for number in numbers) if values else ())


@dataclass(frozen=True)
class Stream:
    """One stream: what ffprobe says of it, and its packets."""

    entry: Fields
    packets: Packets

    @property
    def codec_name(self) -> str:
        """The codec's name in ffmpeg."""
        return self.entry.get("codec_name", "unknown")

    @property
    def stream_index(self) -> int:
        """The number of the stream in its file."""
        return int(self.entry.get("index", 0))

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick."""
        return Fraction(self.entry["time_base"])

    def ticks_to_us(self, ticks: int) -> int:
        """Given ticks, return microseconds, rounded to the nearest."""
        up, down = self._microseconds_per_tick
        return (2 * ticks * up + down) // (2 * down)

    @cached_property
    def _microseconds_per_tick(self) -> tuple[int, int]:
        return (self.time_base * 1_000_000).as_integer_ratio()


@dataclass(frozen=True)
class Video(Stream):
    """A video stream. Its times count from the first frame that is shown.

    ``avc`` is there when it is H.264 whose frames can be copied out of the file as they are. ``orientation`` is how a
    player turns the frames.
    """

    avc: AvcConfig | None = None
    orientation: Orientation = UPRIGHT

    @property
    def display_size(self) -> tuple[int, int]:
        """Width and height as a player shows the frames, in square pixels."""
        return self.orientation.shown_size(round(int(self.entry["width"]) * self.pixel_aspect), int(self.entry["height"]))

    @property
    def pixel_aspect(self) -> Fraction:
        """The width of a pixel over its height, within reason."""
        ratio = _parse_fraction(self.entry.get("sample_aspect_ratio", "").replace(":", "/"))
        return ratio if 1 / MAX_ASPECT <= ratio <= MAX_ASPECT else Fraction(1)

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second, within reason."""
        for name in ("r_frame_rate", "avg_frame_rate"):
            rate = _parse_fraction(self.entry.get(name, ""))
            if MIN_RATE <= rate <= MAX_RATE:
                return rate
        return DEFAULT_RATE

    @property
    def lacks_times(self) -> bool:
        """Whether it is not known when each frame is shown."""
        reordered = self.entry.get("has_b_frames", "0") != "0"
        return bool(self.packets.packets_without_time or (self.packets.packets_without_pts and reordered))

    @property
    def starts_over(self) -> bool:
        """Whether decoding times go back by more than a second, as they do where files were joined."""
        second, decoded = 1 / self.time_base, self.packets.dts
        return any(one - another > second for one, another in pairwise(decoded))

    @property
    def frame_step(self) -> Fraction | None:
        """The time from one frame to the next, in seconds; None when they are not evenly spaced."""
        shown = sorted(self.packets.pts)
        if len(shown) < 2:
            return 1 / self.frame_rate
        step = Fraction(shown[-1] - shown[0], len(shown) - 1)
        even = step and all(abs(one - shown[0] - number * step) <= step / 2 for number, one in enumerate(shown))
        return step * self.time_base if even else None

    @property
    def frame_us(self) -> int:
        """The length of a frame, in microseconds."""
        return int(1_000_000 / self.frame_rate)

    @property
    def first_pts(self) -> int:
        """The time of the first frame that is shown, in ticks."""
        return min(self.packets.pts)

    @property
    def length_us(self) -> int:
        """From the first frame to the end of the last one, in microseconds."""
        pts, durations = self.packets.pts, self.packets.durations
        last = max(range(len(pts)), key=pts.__getitem__)
        return self.ticks_to_us(pts[last] - self.first_pts) + (self.ticks_to_us(durations[last]) or self.frame_us)


@dataclass(frozen=True)
class Audio(Stream):
    """An audio stream."""

    start_us: int

    @property
    def length_us(self) -> int:
        """How long the sound lasts when it is played, without what decoders skip at both ends; microseconds."""
        pts, packets = self.packets.pts, self.packets
        end = self.ticks_to_us(pts[-1] + packets.durations[-1])
        skipped = packets.discarded_samples * 1_000_000 // int(self.entry["sample_rate"])
        return end - self.start_us - skipped


@dataclass(frozen=True)
class MediaInfo:
    """A media file: its first video and first audio stream, as far as it has them. ``reason`` says why it was re-encoded
    before it could be used at all, if it was; ``late_us`` is how long there is only sound before its first picture,
    ``empty_us`` how long there is nothing at all, by what the file says; ``lost_us`` how long, after that, its first frames
    cannot be decoded because the keyframe before them is missing. ``paused``: its edit list holds frames in the middle.
    ``scanned``: the frames are those that a decoder returned; ``damaged``: it found errors; ``strict``: a frame in which it
    finds one is left out, whatever it makes of it."""

    path: Path
    container: str
    start_us: int
    stream_count: int
    video: Video | None
    audio: Audio | None
    reason: str | None = None
    audio_only_us: int = 0
    empty_us: int = 0
    lost_us: int = 0
    paused: bool = False
    scanned: bool = False
    damaged: bool = False
    strict: bool = False


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


def require_video(probed: MediaInfo) -> Video:
    """Given a probed screen file, return its video stream. Raise :class:`MediaError` when it has none to show."""
    if probed.video is None:
        raise MediaError("the file has no video stream", code=Code.NO_VIDEO)
    return probed.video


def require_audio(probed: MediaInfo) -> Audio:
    """Given a probed audio file, return its audio stream. Raise :class:`MediaError` when it has none to play."""
    if probed.audio is None:
        raise MediaError("the file has no audio stream", code=Code.NO_AUDIO)
    if probed.audio.length_us <= 0:
        raise MediaError("the audio has no length", code=Code.NO_AUDIO)
    return probed.audio


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
    packets, end = video.packets, _parse_ticks(video.entry.get("duration_ts")) or 0
    last = max(range(len(packets.pts)), key=packets.pts.__getitem__)
    packets.durations[last] = max(packets.durations[last], min(end, MAX_TICKS) - packets.pts[last])


def _parse_ticks(text: str | None) -> int | None:
    return None if text is None or text == "N/A" else int(text)


def _parse_fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return Fraction(0)


def canvas_size(videos: Iterable[Video]) -> tuple[int, int]:
    """Given video streams, return the smallest size, even in both directions, into which each of them fits."""
    widths, heights = zip(*(video.display_size for video in videos), strict=True)
    return max(widths) + max(widths) % 2, max(heights) + max(heights) % 2
