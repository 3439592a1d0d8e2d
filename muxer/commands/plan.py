"""``python -m muxer plan ID``: what would be made of one call recording, and how; nothing is written anywhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from muxer.commands._shared.common import create_parser, exit_code_of, show_json
from muxer.commands._shared.embedded_muxer import EmbeddedMuxer, Outcome, format_masked_error, run_command
from muxer.commands._shared.lookup import choose_targets, find_targets
from muxer.commands._shared.plan_printer import print_plan
from muxer.commands._shared.plan_report import assumed_facts, plan_facts, shard_facts, storage_facts, target_facts
from muxer.crypto.envelope import recipient_file
from muxer.errors import MuxerError, Stopped
from muxer.gir.muxed_names import ENCRYPTED_SUFFIX
from muxer.gir.targets import MuxTarget
from muxer.media.plan.screen_plan import MUXED
from muxer.pipeline.job import result_location
from muxer.status import activity
from muxer.status.error_help import help_for
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK
from muxer.system.masking import Mask


def main(argv: Sequence[str]) -> int:
    """Given the arguments after ``plan``, run the command and return its exit code."""
    made = create_parser("plan", "Show what would be made of one call recording. Nothing is written to RWS or the storages.")
    made.add_argument("id", metavar="ID", help="id of the call recording")
    made.add_argument("--agent", metavar="NAME", help="only the file of this agent")
    made.add_argument("--no-fetch", action="store_true", help="from metadata alone; lengths are those of stopTime")
    arguments = made.parse_args(argv)
    return exit_code_of(lambda: run_command(arguments, partial(_plan_targets, arguments), steps=False))


def _plan_targets(arguments: argparse.Namespace, parts: EmbeddedMuxer) -> Outcome:
    found = find_targets(parts, arguments.id)
    plans = []
    for target in choose_targets(found.targets, arguments.agent):
        with (
            parts.services.activity.track_target(target.recording_id, target.agent, target.file_name),
            parts.services.workspace.job_folder() as folder,
        ):
            plans.append(_target_plan(arguments, parts, target, folder))
    sharded = shard_facts(parts.config.processing, arguments.id)
    told = {"recording": arguments.id, **sharded, "problems": list(found.problems), "targets": plans}
    return partial(_show_plan, arguments, told)


def _show_plan(arguments: argparse.Namespace, told: dict[str, Any]) -> int:
    if arguments.json:
        show_json(told)
    else:
        print_plan(told)
    return EXIT_FAILED if any("error" in one for one in told["targets"]) else EXIT_OK


def _target_plan(arguments: argparse.Namespace, parts: EmbeddedMuxer, target: MuxTarget, folder: Path) -> dict[str, Any]:
    """Return what is told of a target; with ``error``, as far as it could be found out."""
    facts = target_facts(target)
    try:
        facts |= _storage_facts(parts, target, folder)
        if arguments.no_fetch:
            return facts | assumed_facts(target, round(parts.config.advanced.max_overlap_allowed * 1_000_000))
        parts.job.require_room(target)
        activity.begin_step("fetch")
        audio, screens = parts.job.fetch_sources(target, folder)
        sizes = [one.path.stat().st_size for one in (audio, *screens)]
        activity.begin_step("read")
        facts |= plan_facts(parts.services.engine.plan_mux(audio, screens, folder), sizes)
    except Stopped:
        raise
    except MuxerError as error:
        facts |= {"error": format_masked_error(error, Mask(parts.config.secret_values)), "remedy": help_for(error.code)}
    return facts


def _storage_facts(parts: EmbeddedMuxer, target: MuxTarget, folder: Path) -> dict[str, Any]:
    recipients = parts.job.read_certificates(target)
    name = target.next_free_name if target.published else target.file_name
    place = result_location(target, name + (ENCRYPTED_SUFFIX if recipients else ""))
    files = [recipient_file(folder, number) for number in range(len(recipients))]
    return storage_facts(place, recipients, parts.services.encryptor.build_command(folder / MUXED, files))
