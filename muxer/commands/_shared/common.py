"""What the commands share: their options, the configuration they are about, and how results are shown."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from muxer.config import LoadedConfig, load_config
from muxer.errors import ConfigError
from muxer.log.setup import escape_control
from muxer.status.error_help import help_for
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_FAILED, EXIT_KILLED


def create_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Given the name of a command and what it does, return a parser of the options that all commands have."""
    made = argparse.ArgumentParser(prog=f"python -m muxer {name}", description=description, allow_abbrev=False)
    made.add_argument("--config-file", required=True, metavar="FILE", help="path of muxer.cfg")
    for option in ("--muxer-type", "--muxer-id", "--total-muxers"):
        made.add_argument(option, help="as for run: which instance is meant; overrides the file")
    made.add_argument("--json", action="store_true", help="print JSON, for scripts")
    return made


def load_configuration(arguments: argparse.Namespace) -> LoadedConfig:
    """Given parsed options, return the configuration. Raise :class:`ConfigError`."""
    return load_config(Path(arguments.config_file), override_options(arguments), os.environ)


def override_options(arguments: argparse.Namespace) -> dict[str, str]:
    """Given parsed options, return those that stand for options of muxer.cfg, empty where they are not given."""
    return {name: getattr(arguments, name) or "" for name in ("muxer_type", "muxer_id", "total_muxers")}


def exit_code_of(body: Callable[[], int]) -> int:
    """Run the body of a command and return its exit code; say on stderr what is wrong with the configuration. Ctrl-C ends it
    without a word."""
    try:
        return body()
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"{problem}\n")
        for note in error.notes:
            sys.stderr.write(f"(note) {note}\n")
        return EXIT_CONFIG
    except KeyboardInterrupt:
        return EXIT_KILLED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        return 0


def fail(why: str, nothing: Any | None) -> int:
    """Say on stderr why nothing can be shown or done, and to a script (``nothing`` is not None) that, as JSON. Return the
    exit code."""
    sys.stderr.write(f"{why}\n")
    if nothing is not None:
        show_json(nothing)
    return EXIT_FAILED


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def show_remedies(codes: Iterable[str]) -> None:
    """Print what to do about each code."""
    sys.stdout.write("".join(f"{code}: {help_for(code)}\n" for code in sorted(set(codes))))


def show_table(head: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table: with lines and colours on a terminal, else a line for each row with tabs between."""
    rows = [[escape_control(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in (list(head), *rows):
            sys.stdout.write("\t".join(row) + "\n")
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD)
    for name in head:
        table.add_column(name, overflow="fold")  # nothing is cut off
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if title:  # not as that of the table, which is folded to the table's width
        sys.stdout.write(f"\n{title}:\n")
        sys.stdout.flush()
    Console().print(table)
