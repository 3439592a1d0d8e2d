"""Options, configuration and output that the commands share."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from muxer.config import LoadedConfig, load_config
from muxer.errors import Code, ConfigError
from muxer.log.setup import escape_control
from muxer.log.terminal import writes_utf8
from muxer.status.error_help import help_for
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_FAILED, EXIT_KILLED, EXIT_OK
from muxer.system.program_name import typed_name

_CODE_PREFIX = "MUX-"


def create_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all commands have."""
    parser = argparse.ArgumentParser(prog=f"{typed_name()} {name}", description=description, allow_abbrev=False)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="path of muxer.cfg")
    for option in ("--muxer-type", "--muxer-id", "--total-muxers"):
        parser.add_argument(option, help="selects the instance, as with run; overrides the file")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    return parser


def parse_code(text: str) -> str:
    """Return an error code, given perhaps without prefix or in lower case. Raises ArgumentTypeError for anything else.

    The journal may have codes of another version.
    """
    number = text.strip().upper().removeprefix(_CODE_PREFIX)
    if not re.fullmatch(r"[0-9]{3}", number):
        raise argparse.ArgumentTypeError(f"{text!r} is no error code, such as {Code.MEDIA}; see docs/errors.md")
    return f"{_CODE_PREFIX}{number}"


def load_configuration(arguments: argparse.Namespace, *, needs_secrets: bool = True) -> LoadedConfig:
    """Return the configuration for the parsed options, for :func:`load_config`. Raises ConfigError."""
    path, overrides = Path(arguments.config_file), override_options(arguments)
    return load_config(path, overrides, os.environ, needs_secrets=needs_secrets)


def override_options(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the parsed options that override muxer.cfg; those not given are empty."""
    return {name: getattr(arguments, name) or "" for name in ("muxer_type", "muxer_id", "total_muxers")}


def exit_code_of(body: Callable[[], int]) -> int:
    """Run the body of a command and return its exit code. Problems of the configuration go to stderr."""
    if sys.stdout is None:  # It was closed: files that are opened now could take its place.
        if sys.stderr is not None:
            sys.stderr.write("stdout is closed; send it to /dev/null when it is not read\n")
        return EXIT_FAILED
    try:
        return write_result(lambda: None, body())
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"{problem.full_text}\n")
        for note in error.notes:
            sys.stderr.write(f"(note) {note}\n")
        return EXIT_CONFIG
    except KeyboardInterrupt:
        return EXIT_KILLED
    except BrokenPipeError:
        _discard_output()
        return EXIT_OK
    except OSError:
        # Was it stdout? Then writing to it fails again.
        if write_result(lambda: print(), EXIT_OK) == EXIT_OK:
            raise
        return EXIT_FAILED


def write_result(write: Callable[[], None], code: int) -> int:
    """Write a result and return `code`, also when the reader, such as head, has left; 1 when stdout cannot be written."""
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _discard_output()
        sys.stderr.write(f"the result cannot be written to stdout: {error.strerror or error}\n")
        return EXIT_FAILED
    return code


def _discard_output() -> None:
    """Let nothing more be written to stdout, so that the end of the process does not fail."""
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def fail(reason: str, empty_result: Any | None) -> int:
    """Print `reason` to stderr and, with ``--json``, `empty_result` to stdout (None without). Return the exit code."""
    sys.stderr.write(f"{reason}\n")
    if empty_result is not None:
        show_json(empty_result)
    return EXIT_FAILED


def show_json(value: Any) -> None:
    """Print a value as JSON, in ASCII where the reader may not expect the encoding of stdout."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=not writes_utf8(sys.stdout), default=str) + "\n")


def show_remedies(codes: Iterable[str]) -> None:
    """Print what to do about each error code."""
    sys.stdout.write("".join(f"{code}: {help_for(code)}\n" for code in sorted(set(codes))))


def show_table(head: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table: formatted on a terminal, elsewhere one line for each row, separated by tabs."""
    escaped = ([escape_control(cell) for cell in row] for row in rows)
    if not sys.stdout.isatty():
        for row in chain([list(head)], escaped):
            sys.stdout.write("\t".join(row) + "\n")
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in escaped:
        table.add_row(*(Text(cell) for cell in row))
    if title:  # Not as the title of the table: that is folded to the width of the table.
        sys.stdout.write(f"\n{title}:\n")
        sys.stdout.flush()
    Console().print(table)
