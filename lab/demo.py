"""``python -m lab demo``: runs the real muxer on the lab, and prints a table of the muxed files."""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import LabError, missing_module_error

if TYPE_CHECKING:
    from lab.lab import Lab

FAILED = 1
MAX_RUN_SECONDS = 120.0
LATE_SCREEN_SECONDS = 4.0
MUXER_STOP_SECONDS = 15.0
LOG_CHECK_INTERVAL = 0.2
FINISHED_MESSAGES = ("recording muxed", "recording brought up to date")
PACKAGE_FOLDER = Path(__file__).resolve().parents[1] / "muxer"
TABLE_COLUMNS = ("recording", "agent", "sources", "padding", "length", "seconds", "encrypted", "label")

LogLine = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Demonstrate the muxer with the given command line. Returns 0 when every recording was muxed."""
    parser = argparse.ArgumentParser(
        prog="python -m lab demo", description="Run the muxer on a lab with generated recordings."
    )
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs muxer_process.py")
    options = parser.parse_args(argv)
    try:
        return _run_demo(str(Path(options.python).absolute()) if Path(options.python).exists() else options.python)
    except ModuleNotFoundError as error:
        problem: Exception = missing_module_error(error.name)
    except (LabError, OSError) as error:
        problem = error
    print(f"lab demo: {problem}", file=sys.stderr)
    return FAILED


def _run_demo(python: str) -> int:
    from lab.lab import Lab

    folder = Path(tempfile.mkdtemp(prefix="recording-muxer-demo-"))
    print("Creating calls and screens ...", flush=True)
    with Lab(folder / "lab") as lab:
        calls = lab.add_cases()
        names = {call.id: call.plan.name for call in calls}
        wanted = sum(len(call.plan.call_agents) for call in calls if call.screens and not call.plan.muxed)
        print(f"{len(calls)} calls, {wanted} muxed files expected. Starting muxer_process.py ...", flush=True)
        with _running_muxer(lab, python) as (process, page):
            lines = _show_finished(lab, process, names, wanted)
            if len(lines) < wanted:
                print(
                    f"lab demo: only {len(lines)} of {wanted} files were muxed; see {folder / 'lab' / 'log'}",
                    file=sys.stderr,
                )
                return FAILED
            print(f"\n{_format_table(lines, names)}\n")
            playable = _export_playable(lab, lines, names, folder)
            print(f"All muxed files, decrypted, are in {playable.parent}\nOne to play: {playable}", flush=True)
            if sys.stdin is not None and sys.stdin.isatty():
                _wait_for_enter(page)
    return 0


@contextmanager
def _running_muxer(lab: Lab, python: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the muxer as LCA would, and stop it at the end. Yields its process and the address of its status page."""
    config, port = lab.folder / "muxer.cfg", _free_port()
    text = lab.config_text(**{"logfile.format": "json", "monitoring.http_port": str(port)})
    config.write_text(text, encoding="utf-8")
    command = [python, "muxer_process.py", f"--config-file={config}"]
    process = subprocess.Popen(
        command, cwd=PACKAGE_FOLDER, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    try:
        yield process, f"http://127.0.0.1:{port}/"
    finally:
        is_killed = sys.platform == "win32" and process.poll() is None  # Windows has no SIGTERM.
        process.terminate()
        _, errors = process.communicate(timeout=MUXER_STOP_SECONDS)
    if process.returncode and not is_killed:
        raise LabError(f"muxer_process.py ended with code {process.returncode}: {errors.strip()[-800:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _show_finished(lab: Lab, process: subprocess.Popen[str], names: dict[str, str], wanted: int) -> list[LogLine]:
    """Show the progress until `wanted` files are muxed, and return their log lines."""
    lines: list[LogLine] = []
    for line in _follow_log(lab, process, time.monotonic() + MAX_RUN_SECONDS):
        lines.append(line)
        print(f"  {len(lines)}/{wanted} {_progress_text(line, names)}", flush=True)
        if len(lines) == wanted:
            break
    return lines


def _wait_for_enter(page: str) -> None:
    print(f"\nThe muxer still runs. Its status page: {page}\nPress Enter to stop it.", flush=True)
    with suppress(KeyboardInterrupt):
        sys.stdin.readline()


def _follow_log(lab: Lab, process: subprocess.Popen[str], deadline: float) -> Iterator[LogLine]:
    """Yield the log lines of finished recordings as they come; publish the late screen after a while."""
    log, position, late_at = lab.folder / "log" / "recording-muxer-single.log", 0, time.monotonic() + LATE_SCREEN_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if time.monotonic() >= late_at:
            late_at = float("inf")
            lab.deliver_late()
        if log.exists():
            with log.open("rb") as file:
                file.seek(position)
                complete = [line for line in file if line.endswith(b"\n")]
                position += sum(map(len, complete))
            entries = (json.loads(line) for line in complete)
            yield from (entry for entry in entries if entry["message"] in FINISHED_MESSAGES)
        time.sleep(LOG_CHECK_INTERVAL)


def _progress_text(line: LogLine, names: dict[str, str]) -> str:
    return f"{names[line['recording']]} ({line['agent']}): {line['length']:.0f} s muxed in {line['seconds']:.1f} s"


def _format_table(lines: Sequence[LogLine], names: dict[str, str]) -> str:
    """Return the table of the muxed files, in aligned columns."""
    rows = [
        TABLE_COLUMNS,
        *(_table_row(line, names) for line in sorted(lines, key=lambda line: list(names).index(line["recording"]))),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TABLE_COLUMNS))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _table_row(line: LogLine, names: dict[str, str]) -> tuple[str, ...]:
    return (
        names[line["recording"]],
        line["agent"],
        str(line["sources"]),
        f"{line['padding']:.1f} s",
        f"{line['length']:.1f} s",
        f"{line['seconds']:.1f}",
        "yes" if line["encrypted"] else "no",
        line.get("label", "set before"),
    )


def _export_playable(lab: Lab, lines: Sequence[LogLine], names: dict[str, str], folder: Path) -> Path:
    """Write every muxed file decrypted with the lab's key. Returns the path of the one with gaps."""
    target = folder / "muxed"
    target.mkdir()
    for line in lines:
        screen = lab.store.get_screen(line["recording"]) or {}
        entry = next(media for media in screen["mediaFiles"] if media["mediaId"] == line["file"])
        path = target / f"{names[line['recording']]}-{line['agent']}.mp4"
        stored = lab.site.media.folder / "screens" / line["file"]
        if entry.get("pkcs7"):
            lab.decrypt_file(entry["pkcs7"], stored, path)
        else:
            shutil.copyfile(stored, path)  # the muxer still runs
    return next(path for path in sorted(target.iterdir()) if path.name.startswith("gaps"))
