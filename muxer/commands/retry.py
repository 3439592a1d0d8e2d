"""``retry``: puts back what has failed, so that it is tried at once and counts as never tried."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Sequence

from muxer.commands._shared.common import create_parser, exit_code_of, fail, load_configuration, show_json
from muxer.commands._shared.running_instance import NO_JOURNAL, RUNS, find_instance
from muxer.journal.journal import epoch_now, reset_failures
from muxer.log.setup import escape_control
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK


def main(argv: Sequence[str]) -> int:
    """Given the arguments, put failures back; return 0, or 1 when there was nothing to put back."""
    made = create_parser("retry", "Put back what has failed: it is tried at once, as if for the first time.")
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("recording", nargs="?", metavar="ID", help="the id of a call recording")
    which.add_argument("--all", action="store_true", help="everything that has failed")
    made.add_argument("--code", metavar="MUX-NNN", help="only failures with this code")
    arguments = made.parse_args(argv)
    return exit_code_of(lambda: _retry_failures(arguments))


def _retry_failures(arguments: argparse.Namespace) -> int:
    instance = find_instance(load_configuration(arguments).config)
    if not instance.journal_path.exists():
        return fail(NO_JOURNAL.format(instance.journal_path), {"put_back": []} if arguments.json else None)
    try:
        names = reset_failures(instance.journal_path, epoch_now(), recording=arguments.recording, code=arguments.code)
    except sqlite3.Error as error:
        why = f"the journal {instance.journal_path} cannot be changed: {error}"
        return fail(why, {"put_back": []} if arguments.json else None)
    if arguments.json:
        show_json({"put_back": names})
    elif not names:
        what = "nothing has failed" if arguments.all else f"nothing of {escape_control(arguments.recording)} has failed"
        sys.stderr.write(f"{what}; `failed` lists what has\n")
    else:
        when = "within seconds" if instance.standing == RUNS else "when the muxer is started"
        sys.stdout.write(f"{len(names)} put back; tried {when}, if still in the window\n")
    return EXIT_OK if names else EXIT_FAILED
