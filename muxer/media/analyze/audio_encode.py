"""Re-encode audio to AAC in one form on one time axis, by one process, or through a file of samples with planned silence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO

from muxer.errors import Code, MediaError
from muxer.media.analyze.audio_decode import MAX_CHANNELS, AudioForm, DecodedAudio, decode_audio, form_filters
from muxer.media.analyze.audio_levels import AudioLevels, find_difference
from muxer.media.ffmpeg import QUIET_OPTIONS, WITHOUT_EXTRAS_OPTIONS, MediaTools, input_options
from muxer.media.mp4 import MAX_PACKET_US
from muxer.system import files
from muxer.system.files import open_private
from muxer.system.process import Runner

ENCODE_SECONDS = 900.0
# The sample rates of AAC that browsers play, in Hz.
_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_SAMPLE_BYTES, _COPY_BYTES = 2, 1 << 16


@dataclass(frozen=True)
class AudioSpan:
    """`silence_us` of silence, then the decoded audio of the file `part` from `begin_us` to `end_us`."""

    part: int
    silence_us: int
    begin_us: int
    end_us: int


@dataclass(frozen=True)
class AudioSource:
    """Audio to re-encode: consecutive files, what was decoded of each, and `cut_us` to cut off at both ends."""

    parts: tuple[tuple[Path, DecodedAudio], ...]
    cut_us: tuple[int, int] = (0, 0)

    @property
    def output_form(self) -> AudioForm:
        """The form of the result: the highest sample rate and the largest number of channels."""
        forms = [form for _, decoded in self.parts for form in decoded.samples]
        rate = max(rate for rate, _ in forms)
        return min((known for known in _RATES if known >= rate), default=_RATES[-1]), min(
            max(n for _, n in forms), MAX_CHANNELS
        )

    @property
    def audio_spans(self) -> tuple[AudioSpan, ...]:
        """The spans of the result, in order."""
        spans = [span for number, (_, decoded) in enumerate(self.parts) for span in _spans_of(number, decoded)]
        return tuple(_trim_ends(spans, *self.cut_us))

    @property
    def length_us(self) -> int:
        """The duration of the result in microseconds."""
        return sum(span.silence_us + span.end_us - span.begin_us for span in self.audio_spans)

    @property
    def expected_levels(self) -> AudioLevels:
        """The levels that the result must have."""
        levels, position = AudioLevels(), 0
        for span in self.audio_spans:
            position += span.silence_us
            levels.fill_to(position)
            levels.add_span(self.parts[span.part][1].levels, span.begin_us, span.end_us)
            position += span.end_us - span.begin_us
            levels.fill_to(position)
        return levels

    @property
    def is_simple(self) -> bool:
        """Whether one ffmpeg process can re-encode it: one file of one form, without silence and cuts."""
        (_, decoded), *others = self.parts
        return not others and not decoded.changes_form and not decoded.gaps and not any(self.cut_us)


def encode_audio(tools: MediaTools, runner: Runner, source: AudioSource, output: Path, *, plain: bool) -> None:
    """Re-encode `source` into the MP4 file `output`: at once when `plain`, else through samples. Raises ToolError."""
    if plain:
        runner.run(encode_audio_command(tools, *source.parts[0], source.output_form, output), timeout=ENCODE_SECONDS)
        return
    samples = output.with_name("samples.pcm")
    try:
        _write_samples(tools, runner, source, samples)
        runner.run(pcm_command(tools, samples, source.output_form, output), timeout=ENCODE_SECONDS)
    finally:
        files.remove_file(samples)


def check_encoded(tools: MediaTools, runner: Runner, source: AudioSource, output: Path) -> None:
    """Compare `output` with `source`: form, duration, levels. Raises MediaError with the code NOT_VERIFIED."""
    encoded = decode_audio(tools, runner, output)
    if tuple(encoded.samples) != (source.output_form,):
        raise _mismatch_error(f"it has {_describe_forms(encoded)} and not {_describe_forms(source.output_form)}")
    if encoded.errors:
        raise _mismatch_error(f"the decoder reports {encoded.errors} errors")
    if abs(encoded.length_us - source.length_us) > MAX_PACKET_US:
        raise _mismatch_error(f"it lasts {encoded.length_us / 1e6:.3f} s and not {source.length_us / 1e6:.3f} s")
    if (difference := find_difference(source.expected_levels, encoded.levels)) is not None:
        second, wanted, level = difference
        raise _mismatch_error(f"its level in second {second} is {level:.0f} dB and not {wanted:.0f} dB")


def encode_audio_command(tools: MediaTools, audio: Path, decoded: DecodedAudio, form: AudioForm, output: Path) -> list[str]:
    """Return the command that re-encodes the file `audio` in `form` into the MP4 file `output`, without its time stamps."""
    command = [tools.ffmpeg, *QUIET_OPTIONS, *input_options(audio), "-map", decoded.stream]
    filters = f"{form_filters(*form, form[1])},asetpts=N/SR/TB"
    return [*command, "-af", filters, "-c:a", "aac", *WITHOUT_EXTRAS_OPTIONS, "-f", "mp4", str(output)]


def pcm_command(tools: MediaTools, samples: Path, form: AudioForm, output: Path) -> list[str]:
    """Return the command that encodes raw samples of `form` into the MP4 file `output`."""
    rate, channels = form
    command = [tools.ffmpeg, *QUIET_OPTIONS, "-f", "s16le", "-ar", str(rate), "-ac", str(channels), "-i", f"file:{samples}"]
    command += ["-af", form_filters(*form, channels)]
    return [*command, "-c:a", "aac", *WITHOUT_EXTRAS_OPTIONS, "-f", "mp4", str(output)]


def samples_command(tools: MediaTools, audio: Path, decoded: DecodedAudio, form: AudioForm) -> list[str]:
    """Return the command that writes the samples of the file `audio` in `form` to standard output."""
    numbers = {channels for _, channels in decoded.samples}
    filters = form_filters(*form, numbers.pop() if len(numbers) == 1 else 0)
    command = [tools.ffmpeg, *QUIET_OPTIONS, *input_options(audio), "-map", decoded.stream, "-af", filters]
    return [*command, "-c:a", "pcm_s16le", "-f", "s16le", "pipe:1"]


def _spans_of(number: int, decoded: DecodedAudio) -> Iterator[AudioSpan]:
    position = silence = 0
    for gap in decoded.gaps:
        if gap.at_us > position:
            yield AudioSpan(number, silence, position, gap.at_us)
            position, silence = gap.at_us, 0
        silence += gap.length_us
    yield AudioSpan(number, silence, position, decoded.decoded_us)


def _trim_ends(spans: list[AudioSpan], begin_us: int, end_us: int) -> Iterator[AudioSpan]:
    remaining = sum(span.end_us - span.begin_us for span in spans) - end_us
    for span in spans:
        length = span.end_us - span.begin_us
        skipped, taken = min(begin_us, length), min(remaining, length)
        begin_us, remaining = begin_us - skipped, remaining - taken
        if taken > skipped or span.silence_us:
            yield AudioSpan(span.part, span.silence_us, span.begin_us + skipped, span.begin_us + max(skipped, taken))


def _write_samples(tools: MediaTools, runner: Runner, source: AudioSource, output: Path) -> None:
    form, planned = source.output_form, source.audio_spans
    with open_private(output) as out:
        for number, (path, decoded) in enumerate(source.parts):
            spans = [span for span in planned if span.part == number]
            write = partial(_place_samples, out=out, spans=spans, form=form)
            runner.run_streaming(samples_command(tools, path, decoded, form), write, timeout=ENCODE_SECONDS)


def _place_samples(pcm: IO[bytes], *, out: BinaryIO, spans: Sequence[AudioSpan], form: AudioForm) -> None:
    """Write the samples of one file to `out`, with silence between them, and at its end where samples are missing."""
    rate, channels = form

    def byte_count(microseconds: int) -> int:
        return round(microseconds * rate / 1_000_000) * channels * _SAMPLE_BYTES

    position = 0
    for span in spans:
        _copy_bytes(None, out, byte_count(span.silence_us))
        _copy_bytes(pcm, None, byte_count(span.begin_us) - position)
        _copy_bytes(pcm, out, byte_count(span.end_us) - byte_count(span.begin_us))
        position = byte_count(span.end_us)
    while pcm.read(_COPY_BYTES):
        pass


def _copy_bytes(pcm: IO[bytes] | None, out: BinaryIO | None, length: int) -> None:
    """Copy `length` bytes; zeros without a source, or behind its end."""
    while length > 0:
        wanted = min(length, _COPY_BYTES)
        data = pcm.read(wanted) if pcm is not None else b""
        if out is not None:
            out.write(data or bytes(wanted))
        length -= len(data) or wanted


def _describe_forms(audio: DecodedAudio | AudioForm) -> str:
    forms = audio.samples if isinstance(audio, DecodedAudio) else (audio,)
    return ", ".join(f"{rate} Hz with {channels} channels" for rate, channels in forms)


def _mismatch_error(difference: str) -> MediaError:
    return MediaError(f"the re-encoded audio differs from its source: {difference}", code=Code.NOT_VERIFIED)
