"""Malicious media: files that refer to other files, and files that claim to be huge."""

from __future__ import annotations

import io
import subprocess
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.media import make_audio, make_screen
from muxer.errors import LocalResourceError, MediaError
from muxer.media import limits
from muxer.media.analyze import probe
from muxer.media.analyze.arrival import MediaInput
from muxer.media.analyze.copyable import read_copyable_screen
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.media.media_info import require_video
from muxer.system.process import MAX_MEMORY_BYTES, Runner
from tests.support.tools import tested_tools

T0 = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
SECONDS = 2.0
SECRET = "the-secret-of-another-tenant"
# Each refers to the file `secret.ts` next to it, or to a text, which must never be opened.
TRAPS = {
    "concat list": "ffconcat version 1.0\nfile secret.ts\n",
    "concat list of a text": "ffconcat version 1.0\nfile secret.txt\n",
    "concat list with a protocol": "ffconcat version 1.0\nfile 'concat:secret.ts'\n",
    "HLS": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "HLS of a text": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:secret.txt\n#EXT-X-ENDLIST\n",
    "HLS from the network": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/x\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT9S" profiles="urn:mpeg:dash:profile:full:2011"><Period><AdaptationSet>'
    '<Representation id="1" mimeType="video/mp2t"><BaseURL>secret.ts</BaseURL></Representation></AdaptationSet></Period>'
    "</MPD>",
    "SDP": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "script of a player": '<?xml version="1.0"?><smil><video src="secret.ts"/></smil>',
    "subtitles": f"1\n00:00:00,000 --> 00:00:09,000\n{SECRET}\n",
}


def mux_files(folder: Path, audio: Path, screen: Path, codec: str = "copy") -> MuxedFile:
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=5000, audio_codec=codec)
    (work := folder / "work").mkdir()
    return engine.mux(MediaInput(audio, "the audio", T0), [MediaInput(screen, "the screen", T0)], work)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with good media and with secret files."""
    folder = tmp_path_factory.mktemp("good")
    make_audio(folder / "audio.mp3", T0, SECONDS)
    make_screen(folder / "screen.mp4", T0, SECONDS)
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=d=2", "-f", "lavfi", "-i", "sine=d=2", "-b:v", "200k", folder / "secret.ts")
    (folder / "secret.txt").write_text(SECRET * 100)
    return folder


def run_ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)


@pytest.mark.parametrize("disguise", ["screen", "audio", "audio that is re-encoded"])
@pytest.mark.parametrize("trap", TRAPS)
def test_file_that_refers_to_another_is_refused_in_every_disguise(
    good: Path, tmp_path: Path, trap: str, disguise: str
) -> None:
    bad = good / ("bad.mp4" if disguise == "screen" else "bad.mp3")
    bad.write_text(TRAPS[trap])
    media = (good / "audio.mp3", bad) if disguise == "screen" else (bad, good / "screen.mp4")
    with pytest.raises(MediaError, match=rf"the {disguise.split()[0]}: .*not a readable media file") as caught:
        mux_files(tmp_path, *media, codec="aac" if "re-encoded" in disguise else "copy")
    assert SECRET not in str(caught.value)
    assert not list((tmp_path / "work").glob("muxed*"))


@pytest.mark.machine_ffmpeg  # a static one crashes at some of them
def test_traps_work_without_protection(good: Path) -> None:
    """Without the list of allowed formats, ffprobe opens the file that a concat list names."""
    (bad := good / "bad.mp4").write_text(TRAPS["concat list"])
    command = ["ffprobe", "-v", "error", "-protocol_whitelist", "file", "-show_entries", "stream=codec_type", f"file:{bad}"]
    assert b"codec_type=video" in subprocess.run(command, capture_output=True, check=True, timeout=60).stdout


FORMS = {
    "mkv": ["-c:v", "libx264", "-pix_fmt", "yuv420p"],
    "webm": ["-c:v", "libvpx", "-b:v", "200k", "-deadline", "realtime"],
    "ts": ["-c:v", "libx264", "-pix_fmt", "yuv420p"],
    "avi": ["-c:v", "mpeg4"],
    "wmv": ["-c:v", "wmv2"],
    "mov": ["-c:v", "libx264", "-pix_fmt", "yuv420p"],
    "mpg": ["-c:v", "mpeg2video"],
}
SOUNDS = {"wav": [], "mp3": [], "ogg": [], "flac": [], "aac": [], "m4a": [], "mka": [], "au": [], "w64": [], "wma": []}


@pytest.mark.parametrize("form", FORMS)
def test_every_usual_form_of_a_screen_is_read(good: Path, tmp_path: Path, form: str) -> None:
    rate = ["-r", "25"] if form == "mpg" else []
    run_ffmpeg("-i", good / "screen.mp4", "-t", 1, *rate, *FORMS[form], tmp_path / f"x.{form}")
    assert probe.probe_file(tmp_path / f"x.{form}", "ffprobe", Runner()).video


@pytest.mark.parametrize("form", SOUNDS)
def test_every_usual_audio_format_is_read(good: Path, tmp_path: Path, form: str) -> None:
    run_ffmpeg("-i", good / "audio.mp3", "-t", 1, "-ac", 2, "-ar", 44100, "-strict", "-2", tmp_path / f"x.{form}")
    assert probe.probe_file(tmp_path / f"x.{form}", "ffprobe", Runner()).audio


# --- bombs ---


def patch_box(source: Path, path: Path, box: bytes, change: Callable[[bytes], bytes]) -> Path:
    """Write a copy of an MP4 file with another content of one box, of the same length."""
    data = source.read_bytes()
    begin = data.index(box) + len(box)
    length = int.from_bytes(data[begin - 8 : begin - 4], "big") - 8
    content = change(data[begin : begin + length])
    assert len(content) == length
    path.write_bytes(data[:begin] + content + data[begin + length :])
    return path


def test_a_small_file_that_claims_a_hundred_million_frames_costs_nothing(good: Path, tmp_path: Path) -> None:
    claim = (1).to_bytes(4, "big") + (100_000_000).to_bytes(4, "big")
    bomb = patch_box(good / "screen.mp4", tmp_path / "bomb.mp4", b"stsz", lambda old: old[:4] + claim + old[12:])
    tracemalloc.start()
    try:
        assert read_copyable_screen(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(MediaError, match="the screen: "):
        mux_files(tmp_path, good / "audio.mp3", bomb)


@pytest.mark.parametrize("form", ["mp4", "mkv"])
def test_too_many_frames_are_an_error_for_every_reader(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = tmp_path / f"many.{form}"
    run_ffmpeg("-i", good / "screen.mp4", "-c", "copy", path)
    monkeypatch.setattr(limits, "MAX_FRAMES", 5)
    with pytest.raises(MediaError, match="frames or more; at most 5 are read"):
        mux_files(tmp_path, good / "audio.mp3", path)


def test_endless_empty_boxes_are_left_to_ffmpeg(good: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "boxes.mp4"
    bomb.write_bytes(b"\0\0\0\x08free" * 20_000 + (good / "screen.mp4").read_bytes())
    assert read_copyable_screen(bomb) is None


def create_wide(path: Path, size: str) -> Path:
    run_ffmpeg("-f", "lavfi", "-i", f"color=s={size}:r=5:d=1", "-c:v", "ffv1", "-f", "matroska", path)
    return path


def test_absurd_frame_sizes_are_refused_before_any_encoder_runs(good: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"the screen: the frames are too large \(20000x16\)"):
        mux_files(tmp_path, good / "audio.mp3", create_wide(tmp_path / "wide.mkv", "20000x16"))


def test_absurd_canvas_of_several_files_is_refused(good: Path, tmp_path: Path) -> None:
    files = [create_wide(tmp_path / "wide.mkv", "16000x16"), create_wide(tmp_path / "high.mkv", "16x16000")]
    engine = MediaEngine(tested_tools(), Runner(), tolerance=2.0, slice_ms=5000, audio_codec="copy")
    screens = [MediaInput(path, path.name, T0.replace(second=number)) for number, path in enumerate(files)]
    with pytest.raises(MediaError, match="16000x16000"):
        engine.mux(MediaInput(good / "audio.mp3", "audio", T0), screens, tmp_path)


@pytest.mark.parametrize(("size", "words"), [("width=100000|height=100000", "too large"), ("width=0|height=0", "no size")])
def test_sizes_from_ffprobe_are_checked(tmp_path: Path, size: str, words: str) -> None:
    printed = f"packet|stream_index=0|pts=0|flags=K\nstream|index=0|codec_type=video|time_base=1/9|{size}\n"
    with pytest.raises(MediaError, match=words):
        found = probe.parse_ffprobe(tmp_path, io.BytesIO(printed.encode()))
        limits.check_frame_size(*require_video(found).display_size)


@pytest.mark.parametrize("codec", ["copy", "aac"])
def test_packets_days_apart_are_not_filled_with_silence(good: Path, tmp_path: Path, codec: str) -> None:
    apart = "asetpts=PTS+floor(T/0.3)*90000/TB"
    run_ffmpeg("-t", 1, "-i", good / "audio.mp3", "-af", apart, "-c:a", "aac", bomb := tmp_path / "years.mka")
    with pytest.raises(MediaError, match=r"the audio: the file lasts .* h; at most 48 h are muxed"):
        mux_files(tmp_path, bomb, good / "screen.mp4", codec)


def test_a_program_gets_no_more_memory_than_its_limit() -> None:
    assert int(Runner().run(["sh", "-c", "ulimit -d"], timeout=10)) == MAX_MEMORY_BYTES // 1024
    greedy = "import sys\ntry:\n bytearray(5 << 30)\nexcept MemoryError:\n sys.exit('Cannot allocate memory')"
    with pytest.raises(LocalResourceError):
        Runner().run(["python3", "-c", greedy], timeout=30)
