"""``python -m muxer plan ID``: what would be made of one call recording, and how; nothing is written anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from muxer import activity
from muxer.commands.beside import Beside, Outcome, run_beside, say
from muxer.commands.common import guarded, parser, show_json
from muxer.commands.found import chosen, targets_of
from muxer.commands.planned import assumed_facts, plan_facts, shard_facts, storing_facts, target_facts
from muxer.commands.telling import tell
from muxer.crypto.envelope import recipient_file
from muxer.errors import MuxerError, Stopped
from muxer.exits import EXIT_FAILED, EXIT_OK
from muxer.job import result_place
from muxer.masking import Mask
from muxer.media.plan import MUXED
from muxer.muxed_names import ENCRYPTED
from muxer.remedies import remedy
from muxer.selection import MuxTarget


def main(argv: Sequence[str]) -> int:
    """Given the arguments after ``plan``, run the command and return its exit code."""
    made = parser("plan", "Show what would be made of one call recording. Nothing is written to RWS or the storages.")
    made.add_argument("id", metavar="ID", help="id of the call recording")
    made.add_argument("--agent", metavar="NAME", help="only the file of this agent")
    made.add_argument("--no-fetch", action="store_true", help="from metadata alone; lengths are those of stopTime")
    arguments = made.parse_args(argv)
    return guarded(lambda: run_beside(arguments, partial(_plan, arguments), steps=False))


def _plan(arguments: argparse.Namespace, parts: Beside) -> Outcome:
    found = targets_of(parts, arguments.id)
    plans = []
    for target in chosen(found.targets, arguments.agent):
        with parts.services.activity.job(target), parts.services.workspace.job() as folder:
            plans.append(_planned(arguments, parts, target, folder))
    sharded = shard_facts(parts.config.processing, arguments.id)
    told = {"recording": arguments.id, **sharded, "problems": list(found.problems), "targets": plans}
    return partial(_show, arguments, told)


def _show(arguments: argparse.Namespace, told: dict[str, Any]) -> int:
    if arguments.json:
        show_json(told)
    else:
        tell(told)
    return EXIT_FAILED if any("error" in one for one in told["targets"]) else EXIT_OK


def _planned(arguments: argparse.Namespace, parts: Beside, target: MuxTarget, folder: Path) -> dict[str, Any]:
    """Return what is told of a target; with ``error``, as far as it could be found out."""
    facts = target_facts(target)
    try:
        facts |= _storing(parts, target, folder)
        if arguments.no_fetch:
            return facts | assumed_facts(target, round(parts.config.advanced.max_overlap_allowed * 1_000_000))
        parts.job.need_room(target)
        activity.step("fetch")
        audio, screens = parts.job.fetch(target, folder)
        sizes = [one.path.stat().st_size for one in (audio, *screens)]
        activity.step("read")
        facts |= plan_facts(parts.services.engine.plan(audio, screens, folder), sizes)
    except Stopped:
        raise
    except MuxerError as error:
        facts |= {"error": say(error, Mask(parts.config.secrets)), "remedy": remedy(error.code)}
    return facts


def _storing(parts: Beside, target: MuxTarget, folder: Path) -> dict[str, Any]:
    recipients = parts.job.certificates(target)
    name = target.another_name if target.published else target.name
    place = result_place(target, name + (ENCRYPTED if recipients else ""))
    files = [recipient_file(folder, number) for number in range(len(recipients))]
    return storing_facts(place, recipients, parts.services.encryptor.command(folder / MUXED, files))
