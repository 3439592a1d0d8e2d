"""Files of the muxer that another program, such as a scanner or a backup, holds open on Windows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.journal.journal import JOURNAL_FILE
from muxer.status.state_file import STATE_FILE
from tests.windows.muxer import WindowsMuxer, held_files

pytestmark = pytest.mark.long

Make = Callable[..., Lab]


def write_note(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"kind": "none"}))
    return path


def test_records_that_are_held_delay_no_poll(make_lab: Make, muxer: WindowsMuxer) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    muxer.write_config(lab)
    names = (
        "publishing/a.json",
        "publishing/b.new",
        "uploading/a.json",
        "deleting/a.json",
        "incoming/a.json",
        "kept/a.json",
    )
    notes = [write_note(muxer.temp / name) for name in (*names, STATE_FILE, JOURNAL_FILE)]
    with held_files(muxer.machine, *notes), muxer.running() as process:
        process.wait_for("recording muxed")
        polls = len(muxer.log_lines("poll done"))
        process.wait_for("poll done", polls + 1)
        process.send_control("c")
        assert process.wait() == 0
    assert (call.id, "screenRecording") in lab.store.label_posts
    assert "kept in memory" in muxer.log.read_text(encoding="utf-8")
    assert muxer.log_lines()[-1]["message"] == "stopped"
    assert (muxer.temp / JOURNAL_FILE).read_text() == '{"kind": "none"}'
    with muxer.running() as process:
        process.wait_for("poll done", len(muxer.log_lines("poll done")) + 1)
    left = [note for note in notes if note.exists() and note.parent.name in ("publishing", "uploading", "deleting")]
    assert left == []


def test_a_damaged_journal_is_set_aside_and_replaced(make_lab: Make, muxer: WindowsMuxer) -> None:
    lab = make_lab()
    lab.add_case(Case.PLAIN)
    muxer.write_config(lab)
    (journal := muxer.temp / JOURNAL_FILE).write_bytes(b"SQLite format 3\0" + bytes(8192))
    with muxer.running() as process:
        process.wait_for("recording muxed")
        process.send_control("break")
        assert process.wait() == 0
    assert journal.with_suffix(".corrupt").exists()
    assert "replaced by a new one" in muxer.log.read_text(encoding="utf-8")
    assert muxer.run_command("failed").out == "no failures\n"
