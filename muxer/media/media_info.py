"""What is known of a media file: its streams, and the time of every packet. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from muxer.errors import Code, MediaError
from muxer.media.mp4 import UPRIGHT, AvcConfig, Orientation, sorted_copy

# A frame rate outside this range is wrong, and DEFAULT_RATE is used (our decision).
MIN_RATE, MAX_RATE, DEFAULT_RATE = Fraction(1), Fraction(60), Fraction(10)
# A larger pixel aspect ratio is wrong, too.
MAX_ASPECT = Fraction(4)
Fields = dict[str, str]
# Times this close are equal: time bases of a millisecond are rounded.
TIME_TOLERANCE_US = 1_000
# Frames closer to each other than this are moved apart.
MIN_FRAME_US = 100


@dataclass
class Packets:
    """The packets of one stream in decoding order; times in ticks of the stream's time base.

    `hidden` counts packets that an edit list hides, `packets_without_pts` those without a presentation time; those of
    `packets_without_time` are omitted here. `changes` counts changes of parameters outside of the packets.
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
        """Add a packet as ffprobe prints it. One without any time, or hidden by an edit list, is only counted."""
        flags, shown, decoded = entry.get("flags", ""), parse_ticks(entry.get("pts")), parse_ticks(entry.get("dts"))
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
        self.durations.append(parse_ticks(entry.get("duration")) or 0)
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
        """Return the packets from the keyframe with the number `start` on, without those that are shown before it."""
        first = self.pts[start]
        if not start and first == min(self.pts):
            return self
        return self.select_packets([number for number in range(start, len(self.pts)) if self.pts[number] >= first])


def _pick_values(values: array[int], numbers: Sequence[int]) -> array[int]:
    return array(values.typecode, (values[number] for number in numbers) if values else ())


@dataclass(frozen=True)
class Stream:
    """A stream: its fields as ffprobe prints them, and its packets."""

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
        """Convert ticks to microseconds, rounded to the nearest."""
        up, down = self._microseconds_per_tick
        return (2 * ticks * up + down) // (2 * down)

    @cached_property
    def _microseconds_per_tick(self) -> tuple[int, int]:
        return (self.time_base * 1_000_000).as_integer_ratio()


@dataclass(frozen=True)
class Video(Stream):
    """A video stream; times from the first shown frame on. `avc` is None when its frames cannot be copied."""

    avc: AvcConfig | None = None
    orientation: Orientation = UPRIGHT

    @property
    def display_size(self) -> tuple[int, int]:
        """Width and height as a player shows the frames, in square pixels."""
        return self.orientation.shown_size(round(int(self.entry["width"]) * self.pixel_aspect), int(self.entry["height"]))

    @property
    def pixel_aspect(self) -> Fraction:
        """The width of a pixel divided by its height; 1 when the file states a wrong one."""
        ratio = _parse_fraction(self.entry.get("sample_aspect_ratio", "").replace(":", "/"))
        return ratio if 1 / MAX_ASPECT <= ratio <= MAX_ASPECT else Fraction(1)

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second; DEFAULT_RATE when the file states a wrong one."""
        for name in ("r_frame_rate", "avg_frame_rate"):
            rate = _parse_fraction(self.entry.get(name, ""))
            if MIN_RATE <= rate <= MAX_RATE:
                return rate
        return DEFAULT_RATE

    @property
    def lacks_times(self) -> bool:
        """Whether the presentation time of some frames is unknown."""
        reordered = self.entry.get("has_b_frames", "0") != "0"
        return bool(self.packets.packets_without_time or (self.packets.packets_without_pts and reordered))

    @property
    def starts_over(self) -> bool:
        """Whether decoding times go back by more than a second, as in joined files."""
        second, decoded = 1 / self.time_base, self.packets.dts
        return any(earlier - later > second for earlier, later in pairwise(decoded))

    @property
    def frame_step(self) -> Fraction | None:
        """The time from one frame to the next in seconds; None when they are not evenly spaced."""
        shown = sorted(self.packets.pts)
        if len(shown) < 2:
            return 1 / self.frame_rate
        step = Fraction(shown[-1] - shown[0], len(shown) - 1)
        even = step and all(abs(time - shown[0] - number * step) <= step / 2 for number, time in enumerate(shown))
        return step * self.time_base if even else None

    @property
    def is_crowded(self) -> bool:
        """Whether frames are shown at the same time, or too close to each other to find one by its time."""
        nearest = MIN_FRAME_US / (self.time_base * 1_000_000)
        return any(after - before < nearest for before, after in pairwise(sorted_copy(self.packets.pts)))

    @property
    def frame_us(self) -> int:
        """The duration of a frame in microseconds."""
        return int(1_000_000 / self.frame_rate)

    @property
    def first_pts(self) -> int:
        """The time of the first frame that is shown, in ticks."""
        return min(self.packets.pts)

    @property
    def length_us(self) -> int:
        """The time from the first frame to the end of the last one, in microseconds."""
        pts, durations = self.packets.pts, self.packets.durations
        last = max(range(len(pts)), key=pts.__getitem__)
        return self.ticks_to_us(pts[last] - self.first_pts) + (self.ticks_to_us(durations[last]) or self.frame_us)


@dataclass(frozen=True)
class Audio(Stream):
    """An audio stream. `number` is how many audio streams of the file precede it."""

    start_us: int
    number: int = 0

    @property
    def length_us(self) -> int:
        """The duration when it is played, without what decoders skip at both ends, in microseconds."""
        pts, packets = self.packets.pts, self.packets
        end = self.ticks_to_us(pts[-1] + packets.durations[-1])
        skipped = packets.discarded_samples * 1_000_000 // int(self.entry["sample_rate"])
        return end - self.start_us - skipped


@dataclass(frozen=True)
class MediaInfo:
    """A media file: its first video and its first audio stream, if any.

    `reason` is why it was re-encoded. Before the first frame, `audio_only_us` is audio alone, `empty_us` nothing, and
    `lost_us` after that frames without a keyframe. `audio_count` is the number of audio streams with packets. `paused`: an
    edit list holds frames. `scanned`: a decoder returned these frames; `damaged`: with errors; `strict`: frames with errors
    are omitted.
    """

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
    audio_count: int = 0
    paused: bool = False
    scanned: bool = False
    damaged: bool = False
    strict: bool = False


def require_video(media: MediaInfo) -> Video:
    """Return the video stream of a screen file. Raises MediaError when it has none."""
    if media.video is None:
        raise MediaError("the file has no video stream", code=Code.NO_VIDEO)
    return media.video


def require_audio(media: MediaInfo) -> Audio:
    """Return the audio stream of an audio file. Raises MediaError when it has none, or none of any length."""
    if media.audio is None:
        raise MediaError("the file has no audio stream", code=Code.NO_AUDIO)
    if media.audio.length_us <= 0:
        raise MediaError("the audio has no length", code=Code.NO_AUDIO)
    return media.audio


def parse_ticks(text: str | None) -> int | None:
    """Parse a number of ticks as ffprobe prints it. Returns None when it is missing or unknown (N/A)."""
    return None if text is None or text == "N/A" else int(text)


def _parse_fraction(text: str) -> Fraction:
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return Fraction(0)


def canvas_size(videos: Iterable[Video]) -> tuple[int, int]:
    """Return the smallest size, even in both directions, into which each of the videos fits."""
    widths, heights = zip(*(video.display_size for video in videos), strict=True)
    return max(widths) + max(widths) % 2, max(heights) + max(heights) % 2
