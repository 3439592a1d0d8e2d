"""``python -m muxer mux ID``: make the muxed files of one call recording now, with progress."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from muxer.commands._shared.common import create_parser, exit_code_of, show_json
from muxer.commands._shared.embedded_muxer import EmbeddedMuxer, Outcome, format_masked_error, run_command
from muxer.commands._shared.lookup import choose_targets, find_targets
from muxer.errors import Code, LocalResourceError, MetadataError, MuxerError, Stopped
from muxer.gir.targets import MuxTarget
from muxer.journal.journal import JOURNAL_FILE, TargetKey, record_external_success
from muxer.log.setup import escape_control
from muxer.net.transfer import CHUNK_BYTES
from muxer.pipeline.job import JobReport
from muxer.pipeline.workspace import temp_folder_for
from muxer.status import activity, state_file
from muxer.status.error_help import help_for
from muxer.status.fleet_status import fleet_from_dict
from muxer.system import files
from muxer.system.exit_codes import EXIT_FAILED, EXIT_OK
from muxer.system.files import translate_disk_errors
from muxer.system.masking import Mask

log = logging.getLogger(__name__)

# What a state file says of running jobs counts for so long.
MAX_STATE_AGE_SECONDS = 10.0


def main(argv: Sequence[str]) -> int:
    """Given the arguments after ``mux``, run the command and return its exit code."""
    made = create_parser("mux", "Make the muxed files of one call recording now.")
    made.add_argument("id", metavar="ID", help="id of the call recording")
    made.add_argument("--force", action="store_true", help="make again what is there already; with --output: overwrite FILE")
    made.add_argument("--output", metavar="FILE", type=Path, help="write the muxed file, in clear, to FILE; store nothing")
    made.add_argument("--agent", metavar="NAME", help="only the file of this agent")
    arguments = made.parse_args(argv)
    return exit_code_of(lambda: run_command(arguments, partial(_mux_targets, arguments), steps=True))


def _mux_targets(arguments: argparse.Namespace, parts: EmbeddedMuxer) -> Outcome:
    mask = Mask(parts.config.secret_values)
    if arguments.output is not None:
        _check_output(arguments.output, arguments.force)
    else:
        parts.services.recover_leftovers()
    targets = choose_targets(find_targets(parts, arguments.id).targets, arguments.agent)
    if arguments.output is not None:
        results = [_write_output(parts, _require_single(targets), arguments.output, arguments.force)]
    else:
        _warn_of_running(parts, arguments.id)
        results = [_process_target(parts, target, arguments.force, mask) for target in targets]
    return partial(_show_results, arguments, results)


def _process_target(parts: EmbeddedMuxer, target: MuxTarget, force: bool, mask: Mask) -> dict[str, Any]:
    """Do what a target needs; return what became of it."""
    if not target.needs_work and not force:
        return _result_facts(target, "already done")
    if force and target.published and not target.same_source_files:
        return _result_facts(
            target, "already done", reason="a muxed file of more sources stands for it; that one is not replaced"
        )
    _log_start(target)
    try:
        with parts.services.activity.track_target(target.recording_id, target.agent, target.file_name):
            report = parts.job.run(target, again=force)
    except Stopped:
        raise
    except MuxerError as error:
        return _result_facts(target, "failed", reason=format_masked_error(error, mask)) | {"remedy": help_for(error.code)}
    _record_done(parts, target, report)
    return _result_facts(target, "muxed" if report.muxed else "brought up to date", report)


def _write_output(parts: EmbeddedMuxer, target: MuxTarget, output: Path, force: bool) -> dict[str, Any]:
    """Make the muxed file of a target and write it to a local file."""
    _log_start(target)
    with parts.services.activity.track_target(target.recording_id, target.agent, target.file_name):
        report = parts.job.make_clear(target, lambda made: _copy_output(made, output, force, parts.services.stop.is_set))
    return _result_facts(target, "written", report) | {"output": str(output)}


def _log_start(target: MuxTarget) -> None:
    log.info("muxing, agent %s", target.agent or "unknown", extra={"fields": {"file": target.file_name}})


def _copy_output(made: Path, output: Path, force: bool, stopped: Callable[[], bool]) -> None:
    """Copy a file so that it appears whole or not at all, for this account alone."""
    with translate_disk_errors(output.parent):
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
            fresh = Path(name)
            try:
                activity.set_expected_amount(made.stat().st_size)
                with os.fdopen(descriptor, "wb") as target, made.open("rb") as source:
                    while chunk := source.read(CHUNK_BYTES):
                        target.write(chunk)
                        activity.add_progress(len(chunk))
                        if stopped():
                            raise Stopped("stopped while the muxed file was written")
                _check_output(output, force)
                files.replace_file(fresh, output)
            finally:
                files.remove_file(fresh)
        except PermissionError as error:
            raise LocalResourceError(f"{output} cannot be written: {error.strerror}", code=Code.CONFIGURATION) from error


def _check_output(output: Path, force: bool) -> None:
    """Raise :class:`LocalResourceError` when the muxed file may not be written there."""
    if not output.parent.is_dir():
        raise LocalResourceError(f"--output {output}: there is no folder {output.parent}", code=Code.CONFIGURATION)
    if output.is_dir():
        raise LocalResourceError(f"--output {output}: it is a folder; name a file", code=Code.CONFIGURATION)
    if os.path.lexists(output) and not force:
        text = f"--output {output}: it exists already; remove it, or overwrite it with --force"
        raise LocalResourceError(text, code=Code.CONFIGURATION)


def _require_single(targets: Sequence[MuxTarget]) -> MuxTarget:
    if len(targets) > 1:
        names = ", ".join(dict.fromkeys(target.agent or "(no name)" for target in targets))
        text = f"there are {len(targets)} muxed files, of {names}; choose one with --agent NAME"
        raise MetadataError(text, code=Code.CONFIGURATION)
    return targets[0]


def _warn_of_running(parts: EmbeddedMuxer, recording_id: str) -> None:
    """Say it when a running muxer, or a worker of its fleet, works on the same recording just now. Both may: one of the
    results is kept."""
    told = state_file.read_state(temp_folder_for(parts.config.processing.temp_dir, parts.config.instance_name))
    if told is None or time.time() - told["at"] >= MAX_STATE_AGE_SECONDS:
        return
    fleet = fleet_from_dict(told.get("fleet"))
    jobs = (*state_file.running_jobs(told), *(job for _, job in (fleet.running_jobs if fleet else ())))
    if any(job.recording == recording_id for job in jobs):
        sys.stderr.write("a running muxer works on this recording just now, too; one of the two results is kept\n")


def _record_done(parts: EmbeddedMuxer, target: MuxTarget, report: JobReport) -> None:
    """Tell the journal of the instance, where there is one, so that nobody is told any more that the target has failed."""
    path = temp_folder_for(parts.config.processing.temp_dir, parts.config.instance_name).absolute() / JOURNAL_FILE
    key = TargetKey(target.file_name, target.recording_id, target.agent)
    record_external_success(path, key, time.time(), {**report.facts, "timeline": report.timeline})


def _result_facts(target: MuxTarget, outcome: str, report: JobReport | None = None, reason: str = "") -> dict[str, Any]:
    made = {"recording": target.recording_id, "agent": target.agent, "file": target.file_name, "outcome": outcome}
    told = {**report.facts, **({"timeline": report.timeline} if report.timeline else {})} if report else {}
    twins = {"file": target.same_source_files[-1].media_id} if target.same_source_files and outcome == "already done" else {}
    return {**made, **twins, **told, **({"reason": reason} if reason else {})}


def _show_results(arguments: argparse.Namespace, results: Sequence[dict[str, Any]]) -> int:
    if arguments.json:
        show_json({"recording": arguments.id, "targets": results})
    else:
        _print_results(results)
    return EXIT_FAILED if any(result["outcome"] == "failed" for result in results) else EXIT_OK


def _print_results(results: Sequence[dict[str, Any]]) -> None:
    for result in results:
        agent = f" of {escape_control(result['agent'])}" if result["agent"] else ""
        where = escape_control(result.get("output", result["file"]))
        method = f", {result['length']:.1f} s, {result['method']}" if "method" in result else ""
        reason = f": {result['reason']}" if "reason" in result else ""
        sys.stdout.write(f"{result['outcome']}{agent}: {where}{method}{reason}\n")
        if "missing" in result:
            sys.stdout.write(f"  incomplete: {escape_control(result['missing'])}\n")
        if "remedy" in result:
            sys.stdout.write(f"  what to do: {result['remedy']}\n")
