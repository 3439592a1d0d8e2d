"""Command `support-bundle`: write what support needs to see into one archive, without secrets, names and numbers of people.

It reads what the other commands read. What cannot be had is named in the archive and does not prevent the rest.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import io
import json
import logging
import os
import platform
import shutil
import sqlite3
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from muxer import __version__
from muxer.checks.checklist import run_checks
from muxer.checks.suite import CheckSuite, unusable_options
from muxer.commands._shared.common import create_parser, exit_code_of, fail, override_options, show_json
from muxer.commands._shared.running_instance import NO_JOURNAL, find_instance
from muxer.commands.config import effective_settings
from muxer.commands.status import gather_status, status_facts
from muxer.config import ConfigReading, inspect_config
from muxer.config.schema import Config, all_options
from muxer.errors import MuxerError
from muxer.journal import history
from muxer.journal.journal import RETRY, SET_ASIDE
from muxer.log.outputs import REFUSED_NAME, describe_output, log_path_for
from muxer.log.setup import escape_control
from muxer.monitoring.person_mask import PersonMask
from muxer.status.error_help import help_for
from muxer.system import files
from muxer.system.exit_codes import EXIT_OK
from muxer.system.masking import Mask
from muxer.system.process import Runner

# All checks together; each has its own limit too.
CHECK_TIMEOUT_SECONDS = 120.0
PROGRAM_TIMEOUT_SECONDS = 20.0
# The end of each log file, and of all of them together, the newest first.
MAX_LOG_FILE_BYTES, MAX_LOG_BYTES = 2 << 20, 8 << 20
MAX_FAILURES = 2000
UNPACK_BYTES = 1 << 20
# What programs for the rotation of logs append when they compress them.
GZIP_SUFFIX, _OTHER_COMPRESSIONS = ".gz", (".bz2", ".xz", ".zst")

_README = """\
Support bundle of the Recording Muxer {version}, instance {instance}, written {time}

{contents}

Not included:
{missing}

Secrets are replaced by ***. The names of people, their accounts and their telephone numbers are replaced by pseudonyms:
the same name or number has the same pseudonym in all files of this archive, and another one in the next archive.
Escaped characters are shown as they are. The ids of recordings, the names of servers and the paths of files are unchanged.
Read the files before you send them: a name that no field of the log or the journal contains cannot be recognized.
"""


def main(argv: Sequence[str]) -> int:
    """Run the command; return 0 when the archive is written, else 1."""
    parser = create_parser(
        "support-bundle",
        "Write configuration, checks, status, failures, log and versions into one archive for support. "
        "Secrets are masked; names and telephone numbers of people become pseudonyms.",
    )
    parser.add_argument("--output", metavar="PATH", help="path of the archive (.tar.gz), or an existing folder for it")
    parser.add_argument("--no-check", action="store_true", help="leave out the checks, which connect to the services")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: _write_bundle(arguments))


def _write_bundle(arguments: argparse.Namespace) -> int:
    logging.getLogger().addHandler(logging.NullHandler())  # keeps log messages out of the output
    path = Path(arguments.config_file)
    reading = inspect_config(path, override_options(arguments), os.environ)
    now = datetime.now(UTC)
    target = _archive_path(arguments.output, reading.config.instance_name, now)
    if os.path.lexists(target):
        return fail(f"{target} exists already and is not overwritten; select another path with --output", None)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        problem = "the folder does not exist, or this account may not write to it"
        return fail(f"cannot write {target}: {problem}; select another with --output", None)
    bundle = _Bundle(reading, path)
    bundle.collect_all(with_check=not arguments.no_check)
    try:
        size = _write_archive(target, bundle.masked_files(now))
    except OSError as error:
        return fail(f"cannot write {target}: {error.strerror or error}", None)
    if arguments.json:
        show_json({"path": str(target), "bytes": size, "missing": bundle.missing})
        return EXIT_OK
    sys.stdout.write(f"{target}, {size / 1000:.0f} kB; read the files before you send them\n")
    for what, reason in bundle.missing.items():
        sys.stderr.write(f"not included: {what}: {escape_control(reason)}\n")
    return EXIT_OK


def _archive_path(output: str | None, instance: str, now: datetime) -> Path:
    name = f"recording-muxer-support-{instance}-{now:%Y%m%d-%H%M%S}Z.tar.gz"
    path = Path(output or ".").absolute()
    return path / name if os.path.isdir(path) else path  # noqa: PTH112 Path.is_dir fails below a closed folder.


def _write_archive(target: Path, files: dict[str, bytes]) -> int:
    """Create the archive, private and only if it does not exist; return its size. Removes it when that fails."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(target, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"support-bundle/{name}")
                member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
                archive.addfile(member, io.BytesIO(content))
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target.stat().st_size


class _Bundle:
    """The collected documents and log files by name; `missing` maps what could not be had to the reason."""

    def __init__(self, reading: ConfigReading, path: Path) -> None:
        self._reading, self._path = reading, path
        self._config: Config = reading.config
        self._secrets = Mask(self._config.secret_values)
        self._documents: dict[str, Any] = {}
        self._logs: dict[str, list[str]] = {}
        self.missing: dict[str, str] = {}

    def collect_all(self, *, with_check: bool) -> None:
        """Collect everything that can be had."""
        self._collect("config.json", self._read_settings)
        self._collect("versions.json", self._read_versions)
        self._collect("status.json", lambda: status_facts(self._config, gather_status(self._config)))
        self._collect("failed.json", self._read_failures)
        self._collect("journal.json", self._read_journal)
        self._collect("log files", self._read_logs)
        if with_check:
            self._collect("check.json", self._run_checks)
        else:
            self.missing["check.json"] = "--no-check was given"

    def masked_files(self, now: datetime) -> dict[str, bytes]:
        """Return the content of all files without secrets, names and numbers."""
        people = PersonMask(unmasked=_own_words())
        for name in _account_names(self._config):
            people.add_name(name)
        logs = {name: [_parse_line(self._secrets(line)) for line in lines] for name, lines in self._logs.items()}
        documents = {name: self._mask_secrets(document) for name, document in self._documents.items()}
        missing = {what: self._secrets(reason) for what, reason in self.missing.items()}
        for part in (*logs.values(), *documents.values(), missing):
            people.collect_names(part)
        # Masked again, because secrets may become visible when a text is decoded.
        self.missing = {what: self._secrets(people.mask_text(reason)) for what, reason in missing.items()}
        texts = {
            name: json.dumps(people.mask_json(document), indent=1, ensure_ascii=False, default=str)
            for name, document in documents.items()
        }
        for name, lines in logs.items():
            texts[name] = "\n".join([*(_format_line(people.mask_json(line)) for line in lines), ""])
        contents = "\n".join(sorted(texts)) or "nothing could be had"
        lacking = "\n".join(f"{what}: {reason}" for what, reason in self.missing.items()) or "nothing"
        readme = _README.format(
            version=__version__,
            instance=self._config.instance_name,
            time=f"{now:%Y-%m-%d %H:%M:%S} UTC",
            contents=contents,
            missing=lacking,
        )
        return {
            name: self._secrets(text).encode(errors="backslashreplace")
            for name, text in {"README.txt": readme, **texts}.items()
        }

    def _collect(self, what: str, read: Callable[[], Any]) -> None:
        try:
            document = read()
        except (MuxerError, OSError, sqlite3.Error, ValueError) as error:
            self.missing[what] = str(error)
        except Exception as error:  # The others are wanted all the more.
            self.missing[what] = f"unexpected error: {type(error).__name__}: {error}"
        else:
            if document is not None:
                self._documents[what] = document

    def _read_settings(self) -> dict[str, Any]:
        return {
            "file": str(self._path.absolute()),
            "problems": [str(problem) for problem in self._reading.problems],
            "warnings": list(self._reading.warnings),
            "settings": [asdict(setting) for setting in effective_settings(self._config, self._reading.origins)],
        }

    def _read_versions(self) -> dict[str, Any]:
        processing, runner = self._config.processing, Runner(self._config.processing.openssl or "")
        programs = {"ffmpeg": "-version", "ffprobe": "-version", "openssl": "version"}
        packages = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
        return {
            "muxer": __version__,
            "folder": str(Path(__file__).resolve().parents[2]),
            "python": {"version": sys.version, "executable": sys.executable},
            "packages": dict(sorted(packages.items())),
            "programs": {name: _program_version(runner, getattr(processing, name), how) for name, how in programs.items()},
            "system": {"platform": platform.platform(), "release": _system_release(), "cpus": os.cpu_count()},
            "disks": {str(folder): _disk_space(folder) for folder in _used_folders(self._config)},
        }

    def _read_failures(self) -> list[dict[str, Any]]:
        journal = self._journal_path()
        rows = history.read_failures(journal, (SET_ASIDE, RETRY))
        if len(rows) > MAX_FAILURES:
            self.missing["some failures"] = f"failed.json has the newest {MAX_FAILURES} of {len(rows)}"
        return [{**vars(row), "remedy": help_for(row.code)} for row in rows[:MAX_FAILURES]]

    def _read_journal(self) -> dict[str, Any]:
        journal = self._journal_path()
        past = history.read_history(journal, time.time())
        if past.problem:
            raise OSError(past.problem)
        return {
            "targets": past.counts,
            "failures_by_code": history.count_by_code(journal),
            "hours": [vars(hour) for hour in past.hours],
            "samples": [vars(sample) for sample in past.samples],
            "newest": [vars(row) for row in past.recent],
        }

    def _journal_path(self) -> Path:
        journal = find_instance(self._config).journal_path
        if not files.exists(journal):
            raise FileNotFoundError(NO_JOURNAL.format(journal))
        return journal

    def _run_checks(self) -> list[dict[str, Any]]:
        findings: list[dict[str, Any]] = []
        stop = threading.Event()

        def check() -> None:
            try:
                checks = CheckSuite(self._reading, self._path, False, stop).create_checks()
                for finding in run_checks(checks, unusable_options(self._reading)):
                    if stop.is_set():
                        return
                    findings.append(asdict(finding))
            except Exception as error:  # What was found until then is wanted too.
                self.missing["some checks"] = f"check failed: {type(error).__name__}: {error}"

        thread = threading.Thread(target=check, name="check", daemon=True)
        thread.start()
        thread.join(CHECK_TIMEOUT_SECONDS)
        stop.set()
        if thread.is_alive():
            self.missing["some checks"] = f"check did not finish within {CHECK_TIMEOUT_SECONDS:.0f} s"
        return list(findings)

    def _read_logs(self) -> None:
        room = MAX_LOG_BYTES
        paths = sorted(_log_files(self._config), key=lambda path: path.stat().st_mtime, reverse=True)
        if not paths:
            raise FileNotFoundError(f"there are none; {describe_output(self._config.logfile, self._config.instance_name)}")
        for path in paths:
            if not room:
                self.missing[path.name] = f"all log files together are limited to {MAX_LOG_BYTES >> 20} MB"
                continue
            try:
                content, is_cut = _read_end(path, min(room, MAX_LOG_FILE_BYTES))
            except (OSError, EOFError, zlib.error) as error:
                self.missing[path.name] = str(error)
                continue
            room -= len(content)
            name = f"{path.name}.txt" if path.suffix == GZIP_SUFFIX else path.name
            lines = content.partition(b"\n")[2] if is_cut else content
            self._logs[f"log/{name}"] = lines.decode(errors="backslashreplace").splitlines()

    def _mask_secrets(self, document: Any) -> Any:
        match document:
            case dict():
                return {self._secrets(str(key)): self._mask_secrets(value) for key, value in document.items()}
            case list() | tuple():
                return [self._mask_secrets(value) for value in document]
            case str():
                return self._secrets(document)
        return document


def _own_words() -> Iterator[str]:
    """Yield words of the program and its configuration: an account with such a name is not that of a person."""
    yield from ("muxer", "recording", "recordings", "screen", "audio", "video", "error", "service", "root")
    for section, name, option in all_options():
        yield from (section, *name.split("_"), option.default)


def _account_names(config: Config) -> Iterator[str]:
    """Yield the user names of the configuration."""
    for section in (config.htcc, config.rcs, config.webdav, config.monitoring):
        yield section.username
    yield config.s3.access_key_id


def _log_folder(config: Config) -> Path:
    return log_path_for(config.logfile, config.instance_name).parent


def _log_files(config: Config) -> Iterator[Path]:
    """Yield the log files of the instance, of refused starts, and of the workers of its fleet here, also rotated ones."""
    names = [log_path_for(config.logfile, name).name for name in (config.instance_name, REFUSED_NAME)]
    if config.is_fleet:
        names.append(log_path_for(config.logfile, "worker-*").name)
    for name in names:
        yield from (path for path in _log_folder(config).glob(f"{name}*") if path.is_file() and path.suffix != ".lock")


def _read_end(path: Path, limit: int) -> tuple[bytes, bool]:
    """Return the last bytes of a log file, at most `limit`, and whether that is not all. Unpacks gzip.

    Raises OSError, EOFError or zlib.error.
    """
    if path.suffix in _OTHER_COMPRESSIONS:
        raise OSError("it is compressed, and not with gzip")
    if path.suffix != GZIP_SUFFIX:
        with path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - limit)
            file.seek(start)
            return file.read(limit), start > 0
    content, size = b"", 0
    with gzip.open(path) as packed:
        while chunk := packed.read(UNPACK_BYTES):  # in small parts: what is packed may be larger than the memory
            content, size = (content + chunk)[-limit:], size + len(chunk)
    return content, size > limit


def _parse_line(line: str) -> Any:
    """Return the fields of a line of a JSON log, of a text log the line."""
    try:
        return json.loads(line) if line.startswith("{") else line
    except ValueError:
        return line


def _format_line(line: Any) -> str:
    return escape_control(line) if isinstance(line, str) else json.dumps(line, ensure_ascii=False)


def _program_version(runner: Runner, program: str | None, how: str) -> str:
    if not program:
        return "not found"
    try:
        output = runner.run([program, how], timeout=PROGRAM_TIMEOUT_SECONDS).decode(errors="replace")
    except MuxerError as error:
        return str(error)
    return f"{program}: {output.strip()}"


def _system_release() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return platform.version()


def _used_folders(config: Config) -> set[Path]:
    return {find_instance(config).folder.parent, _log_folder(config)}


def _disk_space(folder: Path) -> dict[str, int] | str:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return str(error)
    return {"total": usage.total, "free": usage.free}
