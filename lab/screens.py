"""Generated screen recordings: an agent's desktop with a running clock and the time code strip."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from lab import timecode
from lab.drawing import Canvas
from lab.tools import QUIET_OPTIONS, feed_program

DESKTOP, WINDOW, TITLE, LINE = 150, 235, 110, 205
BLUE, GREEN = (160, 105), (110, 108)


def make_screen(
    path: Path,
    start: datetime,
    seconds: float,
    *,
    fps: int = 10,
    size: tuple[int, int] = (640, 360),
    agent: str = "agent1",
    agent_number: int = 1,
    extra: Sequence[str] = (),
    ffmpeg: str = "ffmpeg",
) -> None:
    """Write a screen recording of an agent that begins at ``start`` (with time zone) and lasts ``seconds``.

    Frame i shows the instant start + i / fps. Default: H.264 without B-frames, a key frame every two seconds;
    ``extra`` are ffmpeg output options that come after these and so win. Raise LabError if ffmpeg fails, ValueError
    for an odd size.
    """
    width, height = size
    source = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-r", str(fps), "-i", "pipe:0"]
    codec = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-g", str(2 * fps), "-pix_fmt", "yuv420p"]
    frames = _generate_frames(start, round(seconds * fps), fps, size, agent, agent_number)
    feed_program([ffmpeg, *QUIET_OPTIONS, "-y", *source, *codec, *extra, str(path)], frames)


def _generate_frames(
    start: datetime, count: int, fps: int, size: tuple[int, int], agent: str, agent_number: int
) -> Iterator[bytes]:
    desktop = _draw_desktop(size, agent, agent_number, start)
    for index in range(count):
        frame = desktop.copy_luma()
        _draw_instant(frame, start + timedelta(seconds=index / fps), agent_number)
        yield frame.frame_bytes()


def _draw_desktop(size: tuple[int, int], agent: str, agent_number: int, start: datetime) -> Canvas:
    width, height = size
    frame = Canvas(width, height, DESKTOP, BLUE)
    small, left, top = max(1, width // 213), width * 5 // 100, height * 6 // 100
    inner = width * 90 // 100
    frame.fill_rectangle(left, top, inner, height * 74 // 100, WINDOW)
    frame.tint_rectangle(left, top, inner, height * 74 // 100, (128, 128))
    frame.fill_rectangle(left, top, inner, height * 9 // 100, TITLE)
    frame.tint_rectangle(left, top, inner, height * 9 // 100, BLUE if agent_number % 2 else GREEN)
    frame.draw_text(left + small * 3, top + small, f"{agent} - DESKTOP {agent_number}", small, WINDOW, TITLE)
    frame.draw_text(left * 2, height * 19 // 100, f"{start.astimezone(UTC):%Y-%m-%d} UTC", small, paper=WINDOW)
    for row in range(5):
        y = height * (52 + row * 5) // 100
        frame.fill_rectangle(left * 2, y, inner * (3 + (row * 7 + agent_number) % 4) // 10, max(2, height // 90), LINE)
        frame.fill_rectangle(width * 72 // 100, y, width * 18 // 100, max(2, height // 90), LINE - 25)
    return frame


def _draw_instant(frame: Canvas, time: datetime, agent_number: int) -> None:
    utc = time.astimezone(UTC)
    width, height = frame.width, frame.height
    clock = f"{utc:%H:%M:%S}.{utc.microsecond // 100_000}"
    frame.draw_text(width // 10, height * 28 // 100, clock, max(1, width // 90), paper=WINDOW)
    part = (utc.second % 10 + utc.microsecond / 1e6) / 10
    frame.fill_rectangle(width // 10, height * 46 // 100, int(width * 0.8 * part), height * 3 // 100, TITLE)
    frame.fill_rectangle(width // 10 + int(width * 0.76 * part), height * 74 // 100, width // 25, height * 4 // 100, TITLE)
    _draw_strip(frame, timecode.instant_code(time), agent_number)


def _draw_strip(frame: Canvas, instant: int, agent_number: int) -> None:
    blocks = _block_lines(frame.width)
    for row, bits in enumerate(timecode.strip_bits(instant, agent_number)):
        left, top, _, height = timecode.strip_cell(0, row)
        y, bottom = round(top * frame.height), round((top + height) * frame.height)
        line = b"".join(block[bright] for block, bright in zip(blocks, bits, strict=True))
        frame.repeat_line(round(left * frame.width), y, bottom - y, line)


@lru_cache(maxsize=16)
def _block_lines(width: int) -> list[tuple[bytes, bytes]]:
    """Return one line of each block of a row, dark and bright, in a frame of this width."""
    edges = [round(timecode.strip_cell(column, 0)[0] * width) for column in range(timecode.COLUMNS + 1)]
    levels = bytes([timecode.DARK]), bytes([timecode.BRIGHT])
    return [(levels[0] * (right - left), levels[1] * (right - left)) for left, right in pairwise(edges)]
