"""Command `mux ID`: mux one call recording now and show the progress."""

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

from muxer.app.service import ServiceParts
from muxer.commands._shared.common import create_parser, exit_code_of, show_json
from muxer.commands._shared.embedded_muxer import Outcome, format_masked_error, run_command
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

# An older state file says nothing about running jobs.
MAX_STATE_AGE_SECONDS = 10.0
# Of the file that becomes that of --output: short, so that its name is not too long where the other is not.
TEMP_PREFIX = ".muxing-"


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments after its name and return the exit code."""
    parser = create_parser("mux", "Mux one call recording now.")
    parser.add_argument("id", metavar="ID", help="ID of the call recording")
    parser.add_argument(
        "--force", action="store_true", help="mux again what is muxed already; with --output: overwrite FILE"
    )
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="write the muxed file unencrypted to FILE; store nothing"
    )
    parser.add_argument("--agent", metavar="NAME", help="only the muxed file of this agent")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: run_command(arguments, partial(_mux_targets, arguments), steps=True))


def _mux_targets(arguments: argparse.Namespace, muxer: ServiceParts) -> Outcome:
    mask = Mask(muxer.config.secret_values)
    if arguments.output is not None:
        _check_output(arguments.output, arguments.force)
    else:
        muxer.services.recover_leftovers()
    targets = choose_targets(find_targets(muxer, arguments.id).targets, arguments.agent)
    if arguments.output is not None:
        results = [_write_output(muxer, _require_single(targets), arguments.output, arguments.force)]
    else:
        _warn_of_running(muxer, arguments.id)
        results = [_process_target(muxer, target, arguments.force, mask) for target in targets]
    return partial(_show_results, arguments, results)


def _process_target(muxer: ServiceParts, target: MuxTarget, force: bool, mask: Mask) -> dict[str, Any]:
    if not target.needs_work and not force:
        return _result_facts(target, "already done")
    if force and target.published and not target.same_source_files:
        return _result_facts(target, "already done", reason="a muxed file with more sources covers it and is not replaced")
    _log_start(target)
    try:
        with muxer.services.activity.track_target(target.recording_id, target.agent, target.file_name):
            report = muxer.job.run(target, again=force)
    except Stopped:
        raise
    except MuxerError as error:
        return _result_facts(target, "failed", reason=format_masked_error(error, mask)) | {"remedy": help_for(error.code)}
    _record_done(muxer, target, report)
    return _result_facts(target, "muxed" if report.muxed else "brought up to date", report)


def _write_output(muxer: ServiceParts, target: MuxTarget, output: Path, force: bool) -> dict[str, Any]:
    _log_start(target)
    with muxer.services.activity.track_target(target.recording_id, target.agent, target.file_name):
        report = muxer.job.make_clear(target, lambda muxed: _copy_output(muxed, output, force, muxer.services.stop.is_set))
    return _result_facts(target, "written", report) | {"output": str(output)}


def _log_start(target: MuxTarget) -> None:
    log.info("muxing, agent %s", target.agent or "unknown", extra={"fields": {"file": target.file_name}})


def _copy_output(muxed: Path, output: Path, force: bool, stopped: Callable[[], bool]) -> None:
    """Copy `muxed` to `output`, complete or not at all, readable by this account only."""
    try:
        with translate_disk_errors(output.parent):
            descriptor, name = tempfile.mkstemp(prefix=TEMP_PREFIX, dir=output.parent)
            fresh = Path(name)
            try:
                activity.set_expected_amount(muxed.stat().st_size)
                with os.fdopen(descriptor, "wb") as target, muxed.open("rb") as source:
                    while chunk := source.read(CHUNK_BYTES):
                        target.write(chunk)
                        activity.add_progress(len(chunk))
                        if stopped():
                            raise Stopped("stopped while writing the muxed file")
                _check_output(output, force)
                files.replace_file(fresh, output)
            finally:
                files.remove_file(fresh)
    except OSError as error:
        raise _output_error(output, f"it cannot be written: {error.strerror or error}") from error


def _check_output(output: Path, force: bool) -> None:
    """Raise LocalResourceError when `output` cannot be written, also where only an attempt shows that."""
    try:
        if not files.is_folder(output.parent):
            raise _output_error(output, f"there is no folder {output.parent}")
        if files.is_folder(output):
            raise _output_error(output, "it is a folder; name a file")
        if os.path.lexists(output) and not force:
            raise _output_error(output, "it exists already; remove it or overwrite it with --force")
        with translate_disk_errors(output.parent), tempfile.NamedTemporaryFile(prefix=TEMP_PREFIX, dir=output.parent):
            pass
    except OSError as error:
        raise _output_error(output, f"it cannot be written: {error.strerror or error}") from error


def _output_error(output: Path, reason: str) -> LocalResourceError:
    return LocalResourceError(f"--output {output}: {reason}", code=Code.CONFIGURATION)


def _require_single(targets: Sequence[MuxTarget]) -> MuxTarget:
    if len(targets) > 1:
        names = ", ".join(dict.fromkeys(target.agent or "(no name)" for target in targets))
        text = f"there are {len(targets)} muxed files, of {names}; choose one with --agent NAME"
        raise MetadataError(text, code=Code.CONFIGURATION)
    return targets[0]


def _warn_of_running(muxer: ServiceParts, recording_id: str) -> None:
    state = state_file.read_state(temp_folder_for(muxer.config.processing.temp_dir, muxer.config.instance_name))
    if state is None or time.time() - state["at"] >= MAX_STATE_AGE_SECONDS:
        return
    fleet = fleet_from_dict(state.get("fleet"))
    jobs = (*state_file.running_jobs(state), *(job for _, job in (fleet.running_jobs if fleet else ())))
    if any(job.recording == recording_id for job in jobs):
        sys.stderr.write("a running muxer is processing this recording, too; one of the two results is kept\n")


def _record_done(muxer: ServiceParts, target: MuxTarget, report: JobReport) -> None:
    """Record the success in the journal of the instance, if there is one, so that the target no longer counts as failed."""
    path = temp_folder_for(muxer.config.processing.temp_dir, muxer.config.instance_name).absolute() / JOURNAL_FILE
    key = TargetKey(target.file_name, target.recording_id, target.agent)
    record_external_success(path, key, time.time(), {**report.facts, "timeline": report.timeline})


def _result_facts(target: MuxTarget, outcome: str, report: JobReport | None = None, reason: str = "") -> dict[str, Any]:
    facts: dict[str, Any] = {"recording": target.recording_id, "agent": target.agent, "file": target.file_name}
    facts["outcome"] = outcome
    if target.same_source_files and outcome == "already done":
        facts["file"] = target.same_source_files[-1].media_id
    if report is not None:
        facts |= report.facts | ({"timeline": report.timeline} if report.timeline else {})
    return facts | ({"reason": reason} if reason else {})


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
