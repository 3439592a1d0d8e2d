"""What all our ffmpeg commands share: the programs, options, filters, and the times that ffmpeg prints. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from muxer.media import limits
from muxer.media.media_info import MediaInfo, Video
from muxer.media.mp4 import TIMESCALE, UPRIGHT, AvcConfig, Orientation

FULL_RANGE_FORMAT = "yuvj420p"
PIXEL_FORMATS = ("yuv420p", FULL_RANGE_FORMAT)
# ffmpeg removes a jump of times of more than ten seconds from transport streams, program streams and Ogg files: a pause.
# What goes back is corrected all the same. A larger number would take the end of their clock, after a day, for a pause.
KEEP_PAUSES = ("-dts_delta_threshold", "3600")
# The first audio stream of a file, for ffmpeg's option -map.
FIRST_AUDIO = "0:a:0"
QUIET_OPTIONS = ("-nostdin", "-hide_banner", "-v", "error", "-y")
# ffmpeg would write chapters and a time code as extra tracks of an MP4 file.
WITHOUT_EXTRAS_OPTIONS = ("-map_metadata", "-1", "-map_chapters", "-1", "-write_tmcd", "0")
# Threads of an encoder; the number of cores divided by it encoders run at a time (our decision).
ENCODER_THREADS = 2
MP4_OPTIONS = (*WITHOUT_EXTRAS_OPTIONS, "-f", "mp4")
# We count the frames that cannot be decoded ourselves.
TOLERANT_OPTIONS = ("-max_error_rate", "1")
# Prints the progress to standard output.
PROGRESS_OPTIONS = ("-progress", "pipe:1")


@dataclass(frozen=True)
class MediaTools:
    """The media programs. `keep_times` is the option by which this ffmpeg keeps all frame times."""

    ffmpeg: str
    ffprobe: str
    keep_times: tuple[str, str] = ("-fps_mode", "passthrough")


@dataclass(frozen=True)
class VideoTarget:
    """The video parameters of the result: size as coded, `orientation`, and `avc`, None when nothing is copied."""

    width: int
    height: int
    pixels: str
    profile: str
    rate: Fraction
    avc: AvcConfig | None = None
    orientation: Orientation = UPRIGHT

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as a player shows the result."""
        return self.orientation.shown_size(self.width, self.height)


def input_options(path: Path) -> list[str]:
    """Return the options that read a file; only files of known containers are opened."""
    return [*limits.reading_options(), "-i", f"file:{path}"]


def decoding_options(source: MediaInfo) -> list[str]:
    """Return the options that decode `source` with its own times and orientation, as strictly as its damage allows."""
    errors = ("-err_detect", "explode") if source.strict else ()
    # Several threads decode damaged frames differently each time.
    threads = ("-threads", "1") if source.damaged else ()
    return ["-copyts", "-noautorotate", *errors, *threads]


def encoder_options(tools: MediaTools, target: VideoTarget) -> list[str]:
    """Return the options that encode H.264 with the parameters of `target` into an MP4 file without audio."""
    encoder = [*tools.keep_times, "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-bf", "0"]
    encoder += ["-threads", str(ENCODER_THREADS), "-profile:v", target.profile, "-pix_fmt", target.pixels]
    # An edit list would hide the last frame where the encoder does not state its duration.
    encoder += ["-use_editlist", "0"]
    return [*encoder, "-enc_time_base", f"1:{TIMESCALE}", "-video_track_timescale", str(TIMESCALE), *MP4_OPTIONS]


def format_seconds(microseconds: int) -> str:
    """Format microseconds as seconds for ffmpeg."""
    return f"{microseconds / 1_000_000:.6f}"


def fit_filters(video: Video, target: VideoTarget) -> list[str]:
    """Return the filters that fit frames of a source onto the canvas of the result: aspect kept, centred, black around."""
    same = video.orientation == target.orientation
    width, height = (target.width, target.height) if same else target.shown_size
    # As large as fits, in even numbers for 4:2:0; a size close to a whole number is rounded to it.
    sides = (f"{side}=max(2\\,2*trunc(i{side}*min({width}/iw\\,{height}/ih)/2+0.01))" for side in "wh")
    return [
        *_square_pixel_filters(video),
        *(() if same else video.orientation.ffmpeg_filters),
        # Versions of ffmpeg choose different ranges when none is given.
        f"scale={':'.join(sides)}:out_range={'full' if target.pixels == FULL_RANGE_FORMAT else 'limited'}",
        # Before the padding, whose width is rounded to what the format allows.
        f"format={target.pixels}",
        f"pad=w={width}:h={height}:x=(ow-iw)/2:y=(oh-ih)/2",
        "setsar=1",
        *(() if same else target.orientation.inverse.ffmpeg_filters),
    ]


def _square_pixel_filters(video: Video) -> list[str]:
    return [f"scale=iw*{video.pixel_aspect}:ih"] if video.pixel_aspect != 1 else []


def parse_frame_times(printed: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the stream and the presentation time of each frame in the output of ffmpeg's framecrc, in ticks of 1/90000 s."""
    scales: dict[int, tuple[int, int]] = {}
    for line in printed:
        if line.startswith(b"#tb "):
            stream, _, time_base = line[4:].partition(b":")
            scales[int(stream)] = (Fraction(time_base.decode()) * TIMESCALE).as_integer_ratio()
        elif line[:1].isdigit():
            stream, _, time = line.split(b",", 3)[:3]
            up, down = scales[int(stream)]
            yield int(stream), int(time) * up // down
