"""Decode a whole audio file with ffmpeg: the form of every frame, the duration, gaps and levels. No container is trusted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from muxer.errors import Code, MediaError, ToolError
from muxer.media import limits
from muxer.media.analyze.audio_levels import CHANNELS, RATE, AudioLevels
from muxer.media.ffmpeg import FIRST_AUDIO, KEEP_PAUSES, MediaTools, input_options
from muxer.media.media_info import Audio
from muxer.system.process import Runner

DECODE_SECONDS = 900.0
# A jump of the time stamps of at least this is a gap (our decision); rounded time stamps differ by less.
MIN_GAP_US = 50_000
# Time stamps that go back by more than this start over: the file was joined from parts.
_RESTART_US = 1_000_000
# Containers whose time stamps are calculated from sample counts: wrong where the form changes.
_UNTIMED_FILES = (
    *("avi", "mp3", "aac", "flac", "ogg", "wav", "w64", "amr", "au", "caf", "aiff", "ac3", "eac3", "gsm", "voc"),
    *("dts", "tta", "sox", "ircam"),
)
_FRAME_PATTERN = re.compile(rb"ashowinfo.* pts: *(-?\d+|NOPTS) .*channels:(\d+) .*rate:(\d+) nb_samples:(\d+)")
_INFO, _ERROR = b"[info]", b"[error]"

AudioForm = tuple[int, int]


@dataclass(frozen=True)
class AudioGap:
    """A gap in microseconds; `at_us` is how much was decoded before it."""

    at_us: int
    length_us: int


@dataclass
class DecodedAudio:
    """What was decoded: the number of samples of each form (sample rate, channels), of errors, and more.

    `stream` is the audio stream of the file, as in ffmpeg's option ``-map``.
    """

    stream: str = FIRST_AUDIO
    samples: dict[AudioForm, int] = field(default_factory=dict)
    gaps: list[AudioGap] = field(default_factory=list)
    levels: AudioLevels = field(default_factory=AudioLevels)
    errors: int = 0
    frames: int = 0

    @property
    def decoded_us(self) -> int:
        """The duration of the decoded audio in microseconds."""
        return round(sum(count * 1_000_000 / rate for (rate, _), count in self.samples.items()))

    @property
    def length_us(self) -> int:
        """The duration with all gaps in microseconds."""
        return self.decoded_us + sum(gap.length_us for gap in self.gaps)

    @property
    def changes_form(self) -> bool:
        """Whether the sample rate or the number of channels changes."""
        return len(self.samples) > 1


class _FrameLogReader:
    """Reads the error output of ffmpeg, in which its filter ashowinfo describes each frame."""

    def __init__(self, decoded: DecodedAudio) -> None:
        self._decoded = decoded
        # The time in the file at which the decoded audio starts, and the duration of the gaps so far.
        self._origin_us = self._silence_us = 0

    def read_line(self, line: bytes) -> bool:
        """Read one line. Returns whether it is no error."""
        if (match := _FRAME_PATTERN.search(line)) is not None:
            self._decoded.frames += 1
            if self._decoded.frames <= limits.MAX_FRAMES:
                self._add_frame(match)
        self._decoded.errors += _ERROR in line
        return _INFO in line

    def _add_frame(self, match: re.Match[bytes]) -> None:
        decoded = self._decoded
        if match[1] != b"NOPTS":
            late = int(match[1]) - self._origin_us - decoded.decoded_us - self._silence_us
            if late >= MIN_GAP_US:
                decoded.gaps.append(AudioGap(decoded.decoded_us, late))
                self._silence_us += late
            elif late <= -_RESTART_US:
                self._origin_us += late
        channels, rate, count = (int(match[group]) for group in (2, 3, 4))
        if rate > 0:
            decoded.samples[rate, channels] = decoded.samples.get((rate, channels), 0) + count


def decode_audio(
    tools: MediaTools, runner: Runner, path: Path, container: str = "", audio: Audio | None = None
) -> DecodedAudio:
    """Decode a stream, by default the first one of audio; `container` and `audio` come from ffprobe. Raises MediaError."""
    decoded = DecodedAudio(FIRST_AUDIO if audio is None else f"0:a:{audio.number}")
    channels = 0 if audio is None else int(audio.entry.get("channels", 0))
    listener = _FrameLogReader(decoded)
    try:
        runner.run_streaming(
            decode_audio_command(tools, path, decoded.stream, channels),
            decoded.levels.read_pcm,
            timeout=DECODE_SECONDS,
            hear=listener.read_line,
        )
    except ToolError as error:
        raise MediaError(f"the audio cannot be decoded: {error}", code=Code.NO_AUDIO) from error
    limits.check_frames(decoded.frames)
    if not decoded.decoded_us:
        raise MediaError("no audio can be decoded", code=Code.NO_AUDIO)
    if container in _UNTIMED_FILES and (decoded.changes_form or container == "avi"):
        decoded.gaps.clear()
    return decoded


def decode_audio_command(tools: MediaTools, path: Path, stream: str = FIRST_AUDIO, channels: int = 0) -> list[str]:
    """Return the command that decodes the audio of `path`: samples on standard output, frames on standard error."""
    quiet = ["-nostdin", "-hide_banner", "-nostats", "-v", "repeat+level+info"]
    command = [tools.ffmpeg, *quiet, *KEEP_PAUSES, *input_options(path), "-map", stream]
    # Microseconds: the times that ffmpeg prints in seconds have six digits.
    filters = f"asettb=1/1000000,ashowinfo,{form_filters(RATE, CHANNELS, channels)}"
    return [*command, "-af", filters, "-c:a", "pcm_s16le", "-f", "s16le", "pipe:1"]


# ffmpeg's default layout for each number of channels, but for three.
_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1", "7.1")
MAX_CHANNELS = len(_LAYOUTS)


def form_filters(rate: int, channels: int, source_channels: int = 0) -> str:
    """Return the filters that convert audio to `rate` in Hz and `channels` without changing its level.

    `source_channels` is the number of channels of the audio, 0 when it is unknown or changes.
    """
    # ffmpeg takes the last of three channels for one of low frequencies, of which encoders and players keep no speech.
    equal = "channelmap=0|1|2:3.0," if source_channels == 3 else ""
    # ffmpeg divides the level by the root of two when it converts mono to stereo; players do not.
    louder = "volume='if(eq(nb_channels,1),sqrt(2),1)'," if channels == 2 else ""
    return f"{equal}{louder}aresample={rate},aformat=sample_rates={rate}:channel_layouts={_LAYOUTS[channels - 1]}"
