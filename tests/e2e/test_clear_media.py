"""Clear media stay in the temporary folder only while they are needed, and at most until the next start."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support.daemon import MuxerProcess, run_muxer, wait_until
from tests.support.muxer_runs import log_messages, write_config, write_slow_program
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}


def test_sources_are_deleted_as_soon_as_they_are_muxed(make_lab: Make) -> None:
    lab = make_lab()
    lab.add_case(Case.GAPS)
    config, log = write_config(lab, processing__openssl=str(write_slow_program(lab.folder, "openssl")))
    with MuxerProcess(config, umask=0) as muxer:
        wait_until(lambda: "mux done" in log_messages(log), TIMEOUT_SECONDS, "the mux", log)
        # openssl hangs now.
        wait_until(
            lambda: list((lab.folder / "temp").glob("muxer-job-*/recipient-*")), TIMEOUT_SECONDS, "the encryption", log
        )
        (folder,) = (lab.folder / "temp").glob("muxer-job-*")
        held = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
        assert muxer.stop() == 0
    assert held.pop(folder.name) == 0o700
    assert {name for name in held if not name.startswith("recipient-")} <= {"muxed.mp4", "muxed.mp4.bin"}
    assert "muxed.mp4" in held and set(held.values()) == {0o600}


@pytest.mark.parametrize("timeout", spread_variants(["43200", "-1", "1"], 3))
def test_leftover_files_are_deleted_before_first_poll(make_lab: Make, timeout: str) -> None:
    lab = make_lab()
    config, log = write_config(lab, **MIGRATION, processing__clean_temp_folder_timeout=timeout)
    (left := lab.folder / "temp" / "muxer-job-deadbeef").mkdir()
    (left / "audio").write_bytes(b"in clear")
    assert run_muxer(config, seconds=TIMEOUT_SECONDS).process.returncode == 0
    messages = log_messages(log)
    assert not left.exists()
    removed = messages.index("1 leftover folders removed from the temporary folder")
    assert removed < next(number for number, line in enumerate(messages) if line.startswith("migration: "))
