"""Command `plan ID`: show how one call recording would be muxed. It writes nothing to RWS or the storages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from muxer.app.service import ServiceParts
from muxer.commands._shared.common import create_parser, exit_code_of, show_json
from muxer.commands._shared.embedded_muxer import Outcome, format_masked_error, run_command
from muxer.commands._shared.lookup import choose_targets, find_targets
from muxer.commands._shared.plan_printer import print_plan
from muxer.commands._shared.plan_report import assumed_facts, plan_facts, shard_facts, storage_facts, target_facts
from muxer.crypto.envelope import recipient_file
from muxer.errors import MuxerError, Stopped
from muxer.gir.muxed_names import ENCRYPTED_SUFFIX
from muxer.gir.targets import MuxTarget
from muxer.media.plan.mux_plan import MUXED
from muxer.pipeline.job import result_location
from muxer.status import activity
from muxer.status.error_help import help_for
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK
from muxer.system.masking import Mask


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments after its name and return the exit code."""
    parser = create_parser("plan", "Show how one call recording would be muxed. Nothing is written to RWS or the storages.")
    parser.add_argument("id", metavar="ID", help="ID of the call recording")
    parser.add_argument("--agent", metavar="NAME", help="only the muxed file of this agent")
    parser.add_argument("--no-fetch", action="store_true", help="use the metadata alone: fetch no media files")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: run_command(arguments, partial(_plan_targets, arguments), steps=False))


def _plan_targets(arguments: argparse.Namespace, muxer: ServiceParts) -> Outcome:
    selection = find_targets(muxer, arguments.id)
    plans = []
    for target in choose_targets(selection.targets, arguments.agent):
        with (
            muxer.services.activity.track_target(target.recording_id, target.agent, target.file_name),
            muxer.services.workspace.job_folder() as folder,
        ):
            plans.append(_target_plan(arguments, muxer, target, folder))
    shard = shard_facts(muxer.config.processing, arguments.id)
    report = {"recording": arguments.id, **shard, "problems": list(selection.problems), "targets": plans}
    return partial(_show_plan, arguments, report)


def _show_plan(arguments: argparse.Namespace, report: dict[str, Any]) -> int:
    if arguments.json:
        show_json(report)
    else:
        print_plan(report)
    return EXIT_FAILED if any("error" in target for target in report["targets"]) else EXIT_OK


def _target_plan(arguments: argparse.Namespace, muxer: ServiceParts, target: MuxTarget, folder: Path) -> dict[str, Any]:
    """Return the facts of a target; with the key `error` after a failure, and what is known up to it."""
    facts = target_facts(target)
    try:
        facts |= _storage_facts(muxer, target, folder)
        if arguments.no_fetch:
            return facts | assumed_facts(target, round(muxer.config.advanced.max_overlap_allowed * 1_000_000))
        muxer.job.require_room(target)
        activity.begin_step("fetch")
        audio, screens = muxer.job.fetch_sources(target, folder)
        sizes = [source.path.stat().st_size for source in (audio, *screens)]
        activity.begin_step("read")
        facts |= plan_facts(muxer.services.engine.plan_mux(audio, screens, folder), sizes)
    except Stopped:
        raise
    except MuxerError as error:
        facts |= {"error": format_masked_error(error, Mask(muxer.config.secret_values)), "remedy": help_for(error.code)}
    return facts


def _storage_facts(muxer: ServiceParts, target: MuxTarget, folder: Path) -> dict[str, Any]:
    recipients = muxer.job.read_certificates(target)
    name = target.next_free_name if target.published else target.file_name
    location = result_location(target, name + (ENCRYPTED_SUFFIX if recipients else ""))
    files = [recipient_file(folder, number) for number in range(len(recipients))]
    return storage_facts(location, recipients, muxer.services.encryptor.build_command(folder / MUXED, files))
