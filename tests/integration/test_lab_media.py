"""The lab's media generators against its readers, through real codecs, with controls that must fail."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.media import instant_code, make_audio, make_screen, read_frames, read_pips, second_code

START = datetime(2024, 1, 2, 10, 0, 0, tzinfo=UTC)


def run_ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-y", "-v", "error", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def screen(folder: Path) -> Path:
    make_screen(folder / "screen.mp4", START, 4.3, agent_number=200)
    return folder / "screen.mp4"


@pytest.fixture(scope="module")
def audio(folder: Path) -> Path:
    make_audio(folder / "audio.mp3", START + timedelta(milliseconds=300), 12)
    return folder / "audio.mp3"


def off_by(path: Path, start: datetime = START) -> list[int]:
    """Return the distance of each frame of a file from its presentation time, in milliseconds."""
    shown = [(frame, instant_code(start + timedelta(seconds=frame.pts))) for frame in read_frames(path)]
    assert all(frame.instant is not None and not frame.black for frame, _ in shown)
    return [(frame.instant or 0) - expected for frame, expected in shown]


# frames


@pytest.mark.long
def test_every_frame_contains_its_instant_and_agent(screen: Path) -> None:
    frames = read_frames(screen)
    assert len(frames) == 43
    assert {frame.agent for frame in frames} == {200}
    assert set(off_by(screen)) == {0}


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {"extra": ["-bf", "3", "-crf", "40"]},
        {"size": (320, 240), "fps": 7},
        {"size": (1280, 720), "extra": ["-pix_fmt", "yuv444p"]},
        {"extra": ["-c:v", "mpeg4", "-q:v", "12"]},
        {"fps": 30, "agent": "Zoë O'Hara <agent@example.com>, who has a very long name indeed, and no end"},
    ],
)
def test_the_code_survives_other_forms(folder: Path, options: dict[str, object]) -> None:
    path = folder / "form.mp4"
    make_screen(path, START, 2, **options)
    assert set(off_by(path)) <= {-1, 0, 1}


@pytest.mark.long
def test_the_code_survives_scaling_into_a_black_border(folder: Path, screen: Path) -> None:
    path = folder / "border.mp4"
    run_ffmpeg("-i", screen, "-vf", "scale=320:180,pad=640:480:200:120", "-crf", "30", path)
    assert set(off_by(path)) == {0}


def test_only_black_frames_are_read_as_black(folder: Path, screen: Path) -> None:
    black, grey = folder / "black.mp4", folder / "grey.mp4"
    for path, colour in ((black, "black"), (grey, "gray")):
        run_ffmpeg("-f", "lavfi", "-i", f"color={colour}:s=640x360:r=10:d=1", "-pix_fmt", "yuv420p", path)
    assert all(frame.black and frame.instant is None for frame in read_frames(black))
    assert not any(frame.black or frame.instant for frame in read_frames(grey))
    assert not any(frame.black for frame in read_frames(screen))


@pytest.mark.machine_ffmpeg  # newer ones round the times
def test_a_shifted_file_is_detected(folder: Path, screen: Path) -> None:
    path = folder / "late.mp4"
    run_ffmpeg("-i", screen, "-f", "lavfi", "-i", "anullsrc", "-t", 5, "-vf", "setpts=PTS+0.2/TB", path)
    assert set(off_by(path)) == {-200}
    assert set(off_by(screen, START + timedelta(milliseconds=100))) == {-100}


def test_other_frames_have_no_code(folder: Path) -> None:
    path = folder / "test.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=640x360:r=10:d=1", "-pix_fmt", "yuv420p", path)
    assert all(frame.instant is None for frame in read_frames(path))


@pytest.mark.long
def test_frames_of_variable_rate_keep_their_times(folder: Path, screen: Path) -> None:
    path = folder / "variable.mp4"
    run_ffmpeg("-i", screen, "-vf", "select='not(mod(n,3))'", "-fps_mode", "vfr", path)
    assert len(read_frames(path)) == 15
    assert set(off_by(path)) == {0}


@pytest.mark.long
def test_times_are_exact_far_into_a_file(folder: Path, screen: Path) -> None:
    path = folder / "far.mp4"
    run_ffmpeg("-i", screen, "-f", "lavfi", "-i", "anullsrc=r=8000", "-t", 2040, "-vf", "setpts=PTS+2034.5/TB", path)
    assert set(off_by(path, START - timedelta(seconds=2034.5))) <= {-1, 0, 1}


@pytest.mark.long
def test_odd_sizes_and_broken_files_are_refused(folder: Path, screen: Path) -> None:
    with pytest.raises(ValueError, match="even"):
        make_screen(folder / "odd.mp4", START, 1, size=(641, 360))
    with pytest.raises(LabError, match="ffmpeg"):
        make_screen(folder / "bad.mp4", START, 1, extra=["-c:v", "none-such"])
    with pytest.raises(LabError, match="ffmpeg"):
        read_frames(folder / "missing.mp4")
    with pytest.raises(LabError, match="no-such-program"):
        make_screen(folder / "bad.mp4", START, 1, ffmpeg="no-such-program")


# sound


def pip_errors(path: Path, start: datetime, channel: int = 0) -> list[float]:
    """Return the distance of each pip of a file from its whole second, in seconds."""
    errors = []
    for pip in read_pips(path, channel):
        onset = start + timedelta(seconds=pip.onset)
        nearest = onset + timedelta(milliseconds=500)
        assert pip.second == second_code(nearest)
        errors.append((onset - nearest.replace(microsecond=0)).total_seconds())
    return errors


@pytest.mark.long
@pytest.mark.parametrize("channel", [0, 1])
def test_every_second_has_its_pip(audio: Path, channel: int) -> None:
    errors = pip_errors(audio, START + timedelta(milliseconds=300), channel)
    assert len(errors) == 12
    assert max(map(abs, errors)) <= 0.01


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"seconds": 6, "codec": ["-c:a", "pcm_s16le"], "channels": 1}),
        ("b.m4a", {"seconds": 6, "codec": ["-c:a", "aac"], "rate": 16000}),
        ("c.mp3", {"seconds": 42, "codec": ["-c:a", "libmp3lame", "-b:a", "16k"], "channels": 1}),
    ],
)
def test_pips_survive_other_codecs(folder: Path, name: str, options: dict[str, object]) -> None:
    make_audio(folder / name, START, **options)
    errors = pip_errors(folder / name, START)
    assert len(errors) == options["seconds"]
    assert max(map(abs, errors)) <= 0.01


@pytest.mark.long
def test_shifted_audio_is_detected(folder: Path, screen: Path, audio: Path) -> None:
    path = folder / "delayed.mp4"
    run_ffmpeg("-i", screen, "-itsoffset", "0.25", "-i", audio, "-map", "0:v", "-map", "1:a", "-c:a", "aac", path)
    errors = pip_errors(path, START + timedelta(milliseconds=300))
    assert len(errors) >= 11
    assert all(abs(error - 0.25) <= 0.011 for error in errors)


def test_other_audio_has_no_pips(folder: Path) -> None:
    for source in ("anullsrc=r=8000", "sine=f=1000:r=8000", "anoisesrc=r=8000:seed=1"):
        path = folder / "other.wav"
        run_ffmpeg("-f", "lavfi", "-i", source, "-t", 5, path)
        assert read_pips(path) == []


@pytest.mark.long
def test_the_two_speakers_differ(folder: Path) -> None:
    make_audio(folder / "both.wav", START, 8, codec=["-c:a", "pcm_s16le"])
    channels = []
    for channel in (0, 1):
        raw = folder / f"{channel}.raw"
        run_ffmpeg("-i", folder / "both.wav", "-af", f"pan=mono|c0=c{channel}", "-f", "s16le", raw)
        channels.append(raw.read_bytes())
    assert channels[0] != channels[1]
    assert all(len(set(channel)) > 100 for channel in channels)


@pytest.mark.long
def test_a_pip_cut_at_the_start_is_left_out(folder: Path) -> None:
    make_audio(folder / "cut.wav", START + timedelta(milliseconds=80), 3, codec=["-c:a", "pcm_s16le"])
    errors = pip_errors(folder / "cut.wav", START + timedelta(milliseconds=80))
    assert len(errors) == 2
    assert max(map(abs, errors)) <= 0.01


@pytest.mark.long
def test_a_file_without_audio_is_refused(screen: Path) -> None:
    with pytest.raises(LabError, match="ffmpeg"):
        read_pips(screen)
