"""Command `retry`: requeue failed recordings, so that they are retried at once as if for the first time."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Sequence

from muxer.commands._shared.common import create_parser, exit_code_of, fail, load_configuration, parse_code, show_json
from muxer.commands._shared.running_instance import NO_JOURNAL, RUNS, find_instance
from muxer.journal.journal import epoch_now, reset_failures
from muxer.log.setup import escape_control
from muxer.system import files
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK


def main(argv: Sequence[str]) -> int:
    """Run the command; return 0, or 1 when there was nothing to requeue."""
    parser = create_parser("retry", "Requeue failed recordings: they are retried at once, as if for the first time.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("recording", nargs="?", metavar="ID", help="ID of the call recording")
    which.add_argument("--all", action="store_true", help="all failed recordings")
    parser.add_argument("--code", metavar="MUX-NNN", type=parse_code, help="only failures with this code")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: _retry_failures(arguments))


def _retry_failures(arguments: argparse.Namespace) -> int:
    instance = find_instance(load_configuration(arguments, needs_secrets=False).config)
    if not files.exists(instance.journal_path):
        return fail(NO_JOURNAL.format(instance.journal_path), {"put_back": []} if arguments.json else None)
    try:
        names = reset_failures(instance.journal_path, epoch_now(), recording=arguments.recording, code=arguments.code)
    except sqlite3.Error as error:
        reason = f"cannot change the journal {instance.journal_path}: {error}"
        return fail(reason, {"put_back": []} if arguments.json else None)
    if arguments.json:
        show_json({"put_back": names})
    elif not names:
        scope = "" if arguments.all else f" of recording {escape_control(arguments.recording)}"
        wanted = f" with code {escape_control(arguments.code)}" if arguments.code else ""
        sys.stderr.write(f"there is no failure{scope}{wanted}; `failed` lists all failures\n")
    else:
        when = "within seconds" if instance.standing == RUNS else "when the muxer starts"
        sys.stdout.write(f"{len(names)} requeued; retried {when}, if still in the window\n")
    return EXIT_OK if names else EXIT_FAILED
