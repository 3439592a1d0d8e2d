"""Read a call's audio file into the track of the result: copied where that is exact, else re-encoded and compared."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import BoundedSemaphore

from muxer.errors import Code, MediaError, ToolError
from muxer.media import limits
from muxer.media.analyze.audio_decode import DecodedAudio, decode_audio
from muxer.media.analyze.audio_encode import AudioSource, check_encoded, encode_audio
from muxer.media.analyze.copyable import read_copyable_audio
from muxer.media.analyze.ogg_links import split_links
from muxer.media.analyze.probe import probe_file
from muxer.media.analyze.source_commands import copy_audio_command
from muxer.media.ffmpeg import MediaTools
from muxer.media.media_info import Audio, require_audio
from muxer.media.mp4 import MAX_PACKET_US, CopyableAudio, Mp3File, describe_samples, read_mp3
from muxer.system.process import Runner

log = logging.getLogger(__name__)
COPY_SECONDS = 900.0
# A file with a larger undecodable part is rejected.
_MAX_LOST_SHARE = 0.1
# More parts are not a call; each is decoded by its own ffmpeg process.
MAX_JOINED_FILES = 500
DAMAGED, GAPS, CHANGES = "the audio is damaged", "the audio has gaps", "the audio changes its form"
JOINED_REASON = "the audio is several files in one"
# Codecs that browsers play out of an MP4 file; other audio is re-encoded.
PLAYABLE_AUDIO = ("mp3", "aac", "opus", "flac")


class AudioReader:
    """Reads audio files. Safe to use from any thread."""

    def __init__(self, tools: MediaTools, runner: Runner, audio_codec: str, encoders: BoundedSemaphore) -> None:
        self._tools = tools
        self._runner = runner
        self._copying = audio_codec == "copy"
        self._encoders = encoders

    def read_audio_file(self, path: Path, output: Path) -> tuple[CopyableAudio, frozenset[str]]:
        """Read the audio file at `path`. Returns also why it was re-encoded. Raises MediaError."""
        mp3 = read_mp3(path)
        audio, reason = self._read_other(path, output) if mp3 is None else self._read_mp3(mp3, output)
        if audio.length_us <= 0:
            raise MediaError("the audio has no length", code=Code.NO_AUDIO)
        limits.check_length(audio.length_us)
        return audio, frozenset({reason} if reason and (self._copying or reason == DAMAGED) else ())

    def _read_mp3(self, mp3: Mp3File, output: Path) -> tuple[CopyableAudio, str]:
        if self._copying and not mp3.damaged_ranges and not mp3.changes_form:
            return CopyableAudio(mp3.path, mp3.mp4_track, "mp3", mp3.padding), ""
        lost = mp3.lost_seconds()
        limits.check_length(round((mp3.frames_seconds(len(mp3.sizes)) + lost) * 1_000_000))
        if mp3.damaged_ranges:
            _warn_of_damage(len(mp3.damaged_ranges), mp3.frames_seconds(mp3.damaged_ranges[0].before), lost)
        with self._encoders:
            if mp3.is_contiguous and not mp3.changes_form:
                source = AudioSource(((mp3.path, self._decode_file(mp3.path)),))
            else:
                source = self._write_clean_frames(mp3, output)
            audio = self._encode_checked(source, output)
        return audio, DAMAGED if mp3.damaged_ranges else CHANGES if mp3.changes_form else ""

    def _write_clean_frames(self, mp3: Mp3File, output: Path) -> AudioSource:
        """Write the frames of each form to their own file; the silence at both ends is cut off here."""
        if len(mp3.spans) > MAX_JOINED_FILES:
            raise MediaError(f"the audio changes its form more than {MAX_JOINED_FILES} times", code=Code.TOO_MUCH)
        parts = []
        for number in range(len(mp3.spans)):
            path = output.with_name(f"frames-{number}.mp3")
            mp3.write_span(number, path)
            parts.append((path, self._decode_file(path)))
        rates = mp3.spans[0].frame.rate, mp3.spans[-1].frame.rate
        cut = tuple(round(count * 1_000_000 / rate) for count, rate in zip((mp3.delay, mp3.padding), rates, strict=True))
        return AudioSource(tuple(parts), (cut[0], cut[1]))

    def _read_other(self, path: Path, output: Path) -> tuple[CopyableAudio, str]:
        probed = probe_file(path, self._tools.ffprobe, self._runner)
        audio = require_audio(probed)
        if probed.audio_count > 1:
            log.warning("the audio file has %d audio tracks; only the first one is heard", probed.audio_count)
        with self._encoders:
            decoded = self._decode_file(path, probed.container, audio)
            limits.check_length(decoded.length_us)
            if probed.container == "ogg" and (decoded.errors or decoded.gaps) and (links := split_links(path, output)):
                return self._encode_checked(self._decode_joined(links), output), JOINED_REASON
            _check_loss(audio, decoded)
            reason = _encode_reason(decoded)
            if self._copying and not reason:
                copied = self._copy_audio(path, decoded.stream, output)
                if copied is not None and abs(copied.length_us - decoded.length_us) <= MAX_PACKET_US:
                    return copied, ""
                reason = f"{audio.codec_name} audio does not play in browsers"
            return self._encode_checked(AudioSource(((path, decoded),)), output), reason

    def _decode_joined(self, links: list[Path]) -> AudioSource:
        if len(links) > MAX_JOINED_FILES:
            raise MediaError(f"the audio is more than {MAX_JOINED_FILES} files in one", code=Code.TOO_MUCH)
        parts = []
        for path in links:
            probed = probe_file(path, self._tools.ffprobe, self._runner)
            audio = require_audio(probed)
            parts.append((path, self._decode_file(path, probed.container, audio)))
            _check_loss(audio, parts[-1][1])
        return AudioSource(tuple(parts))

    def _decode_file(self, path: Path, container: str = "", audio: Audio | None = None) -> DecodedAudio:
        try:
            return decode_audio(self._tools, self._runner, path, container, audio)
        except MediaError as error:
            codec = audio.codec_name if audio is not None else "MP3"
            raise MediaError(f"the format {codec} is not supported, or damaged: {error}", code=error.code) from error

    def _copy_audio(self, path: Path, stream: str, output: Path) -> CopyableAudio | None:
        """Copy an audio stream into an MP4 file. Returns None when that is not possible, or when browsers do not play it."""
        try:
            self._runner.run(copy_audio_command(self._tools, path, output, stream), timeout=COPY_SECONDS)
        except ToolError as error:
            log.debug("the audio cannot be copied into an MP4 file: %s", error)
            return None
        copied = read_copyable_audio(output)
        if copied is None or copied.codec not in PLAYABLE_AUDIO:
            return None
        if copied.codec != "mp3":
            return copied
        track = describe_samples(output, copied.track)
        return CopyableAudio(output, track, "mp3") if track is not None else None

    def _encode_checked(self, source: AudioSource, output: Path) -> CopyableAudio:
        """Re-encode and compare; when they differ, re-encode in the slower way."""
        limits.check_length(source.length_us)
        for plain in (True, False) if source.is_simple else (False, False):
            try:
                return self._encode_once(source, output, plain=plain)
            except (MediaError, ToolError) as error:
                log.warning("the audio is re-encoded again: %s", error)
                failure = error
        raise MediaError(f"the audio cannot be re-encoded: {failure}", code=failure.code) from failure

    def _encode_once(self, source: AudioSource, output: Path, *, plain: bool) -> CopyableAudio:
        encode_audio(self._tools, self._runner, source, output, plain=plain)
        check_encoded(self._tools, self._runner, source, output)
        encoded = read_copyable_audio(output)
        if encoded is None:
            raise ToolError("the encoder has not created a copyable MP4 file")
        return encoded


def _encode_reason(decoded: DecodedAudio) -> str:
    """Return why decoded audio cannot be copied; empty when it can."""
    if decoded.errors:
        first = decoded.gaps[0].at_us if decoded.gaps else 0
        _warn_of_damage(max(1, len(decoded.gaps)), first / 1e6, sum(gap.length_us for gap in decoded.gaps) / 1e6)
        return DAMAGED
    return CHANGES if decoded.changes_form else GAPS if decoded.gaps else ""


def _warn_of_damage(places: int, first: float, silence: float) -> None:
    message = "the audio is damaged, places: %d, the first at %.2f s; about %.2f s of silence replace the lost audio"
    log.warning(message, places, first, silence)


def _check_loss(audio: Audio, decoded: DecodedAudio) -> None:
    """Raise MediaError when more than a tenth of the audio packets cannot be decoded."""
    packets = len(audio.packets.pts)
    if decoded.errors and decoded.frames < packets * (1 - _MAX_LOST_SHARE):
        lost = packets - decoded.frames
        raise MediaError(f"{lost} of {packets} packets of the audio cannot be decoded", code=Code.NO_AUDIO)
