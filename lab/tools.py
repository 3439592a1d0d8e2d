"""Run ffmpeg, ffprobe and openssl, always with an argument list and their stderr in the error."""

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from lab.errors import LabError

QUIET_OPTIONS = ("-hide_banner", "-nostdin", "-v", "error")


def run_program(arguments: Sequence[str]) -> bytes:
    """Run a program and return its output. Raises LabError with the end of its stderr if it fails or is missing."""
    try:
        result = subprocess.run(arguments, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise LabError(_failure_text(arguments, error.stderr)) from error
    except OSError as error:
        raise LabError(f"{arguments[0]} cannot be run: {error.strerror}") from error
    return result.stdout


def feed_program(arguments: Sequence[str], chunks: Iterable[bytes]) -> None:
    """Run a program with `chunks` on its stdin. Raises LabError as run_program does."""
    with tempfile.TemporaryFile() as errors:
        try:
            program = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
        except OSError as error:
            raise LabError(f"{arguments[0]} cannot be run: {error.strerror}") from error
        with program:
            _write_input(program, chunks)
        if program.returncode:
            errors.seek(0)
            raise LabError(_failure_text(arguments, errors.read()))


def _write_input(program: subprocess.Popen[bytes], chunks: Iterable[bytes]) -> None:
    if program.stdin is None:
        return
    try:
        for chunk in chunks:
            program.stdin.write(chunk)
        program.stdin.close()
    except BrokenPipeError:
        program.wait()


def _failure_text(arguments: Sequence[str], errors: bytes) -> str:
    return f"{Path(arguments[0]).name} failed: {errors.decode(errors='replace').strip()[-500:]}"
