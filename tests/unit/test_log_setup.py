"""The log: one file per instance, one line per step with the recording id, no secrets."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muxer.config.schema import LogfileOptions
from muxer.log import setup
from muxer.log.outputs import log_path_for

log = logging.getLogger("muxer.test")
Lines = Callable[[], list[str]]
FORMATS = pytest.mark.parametrize("form", ["text", "json"])


@pytest.fixture
def set_up(tmp_path: Path) -> Iterator[Callable[..., Lines]]:
    root = logging.getLogger()
    handlers, level, own = list(root.handlers), root.level, logging.getLogger("muxer").level
    root.handlers.clear()

    def create_log(
        form: str = "text", *secrets: str, level: str = "debug", max_bytes: int = 10_000_000, count: int = 3
    ) -> Lines:
        options = LogfileOptions(tmp_path, level, form, max_bytes, count)
        setup.set_up_logging(options, "single", secrets)
        path = log_path_for(options, "single")
        return lambda: path.read_text(encoding="utf-8").split("\n")[:-1]

    yield create_log
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("muxer").setLevel(own)


SetUp = Callable[..., Lines]


def test_each_instance_has_a_separate_log_file(tmp_path: Path, set_up: SetUp) -> None:
    set_up()
    setup.set_up_logging(LogfileOptions(tmp_path, "info", "text", 1000, 1), "backup-2", ())
    assert (tmp_path / "recording-muxer-backup-2.log").is_file()


@pytest.mark.posix
def test_without_a_folder_the_file_is_in_the_working_directory(
    tmp_path: Path, set_up: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recording-muxer-single.log").unlink()
    setup.set_up_logging(LogfileOptions(None, "info", "text", 1000, 1), "single", ())
    assert (tmp_path / "recording-muxer-single.log").is_file()


@FORMATS
def test_each_line_contains_its_recording(set_up: SetUp, form: str) -> None:
    lines = set_up(form)
    with setup.recording_context("C-17"):
        log.info("within")
    log.info("without")
    within, without = lines()
    assert "C-17" in within
    assert "C-17" not in without


def test_each_thread_logs_its_own_recording(set_up: SetUp) -> None:
    lines = set_up()
    with setup.recording_context("C-17"):
        thread = threading.Thread(target=lambda: log.info("elsewhere"))
        thread.start()
        thread.join()
    assert "C-17" not in lines()[0]


@pytest.mark.posix
def test_a_json_line_holds_all_fields(set_up: SetUp) -> None:
    lines = set_up("json")
    with setup.recording_context("C-17"):
        log.warning("muxed %s", "x", extra={"fields": {"seconds": 1.5, "path": Path("/p"), "name": "ü"}})
    entry = json.loads(lines()[0])
    assert entry["recording"] == "C-17"
    assert (entry["level"], entry["message"], entry["logger"]) == ("warning", "muxed x", "muxer.test")
    assert (entry["seconds"], entry["path"], entry["name"]) == (1.5, "/p", "ü")
    assert entry["time"].endswith("Z")


def test_a_text_line_holds_all_fields(set_up: SetUp) -> None:
    lines = set_up()
    log.info("muxed", extra={"fields": {"bytes": 12, "agent": "Anna B", "empty": ""}})
    assert lines()[0].endswith('INFO    muxed bytes=12 agent="Anna B" empty=""')


@FORMATS
def test_metadata_cannot_start_a_new_line(set_up: SetUp, form: str) -> None:
    lines = set_up(form)
    with setup.recording_context("C1\n2024 ERROR forged"):
        log.info("agent %s", "x\r\n\x1b[2J\u2028forged", extra={"fields": {"media": "a\nb"}})
    (line,) = lines()
    assert "\x1b" not in line


@FORMATS
def test_a_traceback_is_logged(set_up: SetUp, form: str) -> None:
    lines = set_up(form)
    try:
        raise ValueError("the reason")
    except ValueError:
        log.exception("failed")
    assert any("ValueError: the reason" in line for line in lines())


SECRETS = ["S3cr3t-Pa55", 'quo"te\\back', "pässwört", 'pä"ss\\wört', "with blank in it", "a/b@c:d?e#f", "100%geheim"]


@FORMATS
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_never_appears(set_up: SetUp, form: str, secret: str) -> None:
    lines = set_up(form, secret)
    log.debug("the password is %s", secret, extra={"fields": {"password": secret, "text": f"x {secret} y"}})
    try:
        raise ValueError(f"refused {secret}")
    except ValueError:
        log.exception("failed")
    text = "\n".join(lines())
    spelled = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    assert [spelling for spelling in spelled if spelling in text] == []
    if form == "json":
        assert [json.loads(line)["level"] for line in lines()] == ["debug", "error"]


def test_a_secret_that_contains_another_is_removed_completely(set_up: SetUp) -> None:
    lines = set_up("text", "geheim", "geheim-und-mehr")
    log.info("it is geheim-und-mehr")
    assert "mehr" not in lines()[0]


@FORMATS
@pytest.mark.parametrize("login", ["user:pa55word", "user:p@55word", "user"])
def test_credentials_in_an_address_never_appear(set_up: SetUp, form: str, login: str) -> None:
    lines = set_up(form)
    log.info("GET http://%s@dav:80/r/x.mp4 failed", login)
    assert "55word" not in lines()[0]
    assert "user" not in lines()[0]
    assert "dav:80/r/x.mp4" in lines()[0]


def test_an_at_sign_in_a_path_is_not_taken_for_credentials(set_up: SetUp) -> None:
    lines = set_up()
    log.info("GET http://dav/a@b/x.mp4 for anna@example.com")
    assert lines()[0].endswith("GET http://dav/a@b/x.mp4 for anna@example.com")


def test_the_level_holds_for_our_lines_and_libraries_only_warn(set_up: SetUp) -> None:
    lines = set_up(level="info")
    log.debug("not this")
    log.info("this")
    logging.getLogger("urllib3").info("nor this")
    logging.getLogger("urllib3").warning("and this")
    assert [line.rsplit(" ", 1)[-1] for line in lines()] == ["this", "this"]


def test_the_file_is_rotated_and_old_ones_are_dropped(tmp_path: Path, set_up: SetUp) -> None:
    set_up(max_bytes=500, count=2)
    for number in range(100):
        log.info("line number %d with some text", number)
    name = "recording-muxer-single.log"
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.1", f"{name}.2", f"{name}.lock"}
    assert all(path.stat().st_size <= 500 for path in tmp_path.iterdir())
    newest_last = [(tmp_path / f"{name}{end}").read_text().splitlines() for end in (".2", ".1", "")]
    numbers = [int(line.split()[4]) for lines in newest_last for line in lines]
    assert numbers == list(range(numbers[0], 100))


def test_a_rotation_that_fails_loses_no_line_and_no_older_file(
    tmp_path: Path, set_up: SetUp, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, which no file can replace, stands in for a file that another program holds on Windows."""
    lines = set_up(max_bytes=500, count=3)
    name = "recording-muxer-single.log"
    older = {f"{name}.1": "one", f"{name}.2": "two"}
    for file, text in older.items():
        (tmp_path / file).write_text(text)
    (tmp_path / f"{name}.3").mkdir()
    for number in range(30):
        log.info("line number %d with some text", number)
    assert len(lines()) == 30
    assert {file: (tmp_path / file).read_text() for file in older} == older
    assert capsys.readouterr().err.count("cannot be rotated") == 1
    (tmp_path / f"{name}.3").rmdir()
    log.info("the last")
    assert lines()[-1].endswith("the last") and len(lines()) == 1
    assert (tmp_path / f"{name}.2").read_text() == "one"
    assert "is written again" in capsys.readouterr().err


def test_a_rotation_that_fails_halfway_is_continued(tmp_path: Path, set_up: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = set_up(max_bytes=500, count=5)
    name = "recording-muxer-single.log"
    for number in (1, 2, 3):
        (tmp_path / f"{name}.{number}").write_text(str(number))
    replace = Path.replace

    def held_open(self: Path, target: Path) -> Path:
        if self.name == f"{name}.1":
            raise PermissionError(13, "another program reads it")
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", held_open)
        for number in range(40):
            log.info("line number %d with some text", number)
    assert len(lines()) == 40
    log.info("the last")
    assert [(tmp_path / f"{name}.{number}").read_text() for number in (2, 3, 4)] == ["1", "2", "3"]


def test_a_full_disk_loses_log_lines_and_nothing_else(
    set_up: SetUp, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = set_up("text", "geheim-und-mehr")
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logging.FileHandler)
    full = Path("/dev/full").open("w")  # noqa: SIM115
    with monkeypatch.context() as patch:
        patch.setattr(handler, "stream", full)
        for _ in range(3):
            log.info("lost %s", "geheim-und-mehr")
    with pytest.raises(OSError, match="No space"):
        full.close()
    error_output = capsys.readouterr().err
    assert "cannot be written" in error_output and "No space left" in error_output and error_output.count("\n") == 1
    assert "geheim" not in error_output
    log.info("kept")
    assert lines()[-1].endswith("kept")
    assert "is written again" in capsys.readouterr().err


def test_a_second_process_does_not_write_the_same_file(tmp_path: Path, set_up: SetUp) -> None:
    set_up()
    code = (
        "import sys; from pathlib import Path; from muxer.config.schema import LogfileOptions; from muxer.log import setup\n"
        "setup.set_up_logging(LogfileOptions(Path(sys.argv[1]), 'info', 'text', 1000, 1), sys.argv[2], ())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    second = subprocess.run([*command, "single"], capture_output=True, text=True, timeout=60, check=False)
    assert "LockHeld" in second.stderr and str(os.getpid()) in second.stderr
    subprocess.run([*command, "primary-0"], timeout=60, check=True)


def test_a_second_set_up_does_not_write_lines_twice(set_up: SetUp) -> None:
    set_up()
    lines = set_up()
    log.info("once")
    assert len(lines()) == 1


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path, set_up: SetUp) -> None:
    set_up()
    with pytest.raises(OSError, match="No such file"):
        setup.set_up_logging(LogfileOptions(tmp_path / "none", "info", "text", 1000, 1), "single", ())
