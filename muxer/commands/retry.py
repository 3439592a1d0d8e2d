"""``retry``: puts back what has failed, so that it is tried at once and counts as never tried."""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import Sequence

from muxer.commands.common import guarded, loaded, parser, refused, show_json
from muxer.commands.instance import NO_JOURNAL, RUNS, look
from muxer.exits import EXIT_FAILED, EXIT_OK
from muxer.journal import now, put_back
from muxer.observe.logs import plain


def main(argv: Sequence[str]) -> int:
    """Given the arguments, put failures back; return 0, or 1 when there was nothing to put back."""
    made = parser("retry", "Put back what has failed: it is tried at once, as if for the first time.")
    which = made.add_mutually_exclusive_group(required=True)
    which.add_argument("recording", nargs="?", metavar="ID", help="the id of a call recording")
    which.add_argument("--all", action="store_true", help="everything that has failed")
    made.add_argument("--code", metavar="MUX-NNN", help="only failures with this code")
    arguments = made.parse_args(argv)
    return guarded(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    instance = look(loaded(arguments).config)
    if not instance.journal.exists():
        return refused(NO_JOURNAL.format(instance.journal), {"put_back": []} if arguments.json else None)
    try:
        names = put_back(instance.journal, now(), recording=arguments.recording, code=arguments.code)
    except sqlite3.Error as error:
        why = f"the journal {instance.journal} cannot be changed: {error}"
        return refused(why, {"put_back": []} if arguments.json else None)
    if arguments.json:
        show_json({"put_back": names})
    elif not names:
        what = "nothing has failed" if arguments.all else f"nothing of {plain(arguments.recording)} has failed"
        sys.stderr.write(f"{what}; `failed` lists what has\n")
    else:
        when = "within seconds" if instance.standing == RUNS else "when the muxer is started"
        sys.stdout.write(f"{len(names)} put back; tried {when}, if still in the window\n")
    return EXIT_OK if names else EXIT_FAILED
