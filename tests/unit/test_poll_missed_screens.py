"""A migration reads its query again when bulk responses may have left out screen recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from muxer.errors import QueryIncomplete
from muxer.gir.models import CallRecording, ScreenRecording
from muxer.gir.rws import SkipCallback
from tests.support.clocked_polls import ClockedPolls, ClockedRws

MIGRATION = {"advanced__call_recording_query_string": "startTime=0&endTime=9999999999999"}


class LateRws(ClockedRws):
    """An RWS that hides screen recordings until that is found out; it never returns all call recordings."""

    hides = True

    def read_call_recordings(self, query: str) -> Iterator[list[CallRecording]]:
        yield from super().read_call_recordings(query)
        raise QueryIncomplete("RWS refuses page 2")

    def fetch_screen_recordings(self, ids: Sequence[str], bulk: bool, skip: SkipCallback) -> dict[str, ScreenRecording]:
        return {} if self.hides else super().fetch_screen_recordings(ids, bulk, skip)

    def take_missed_screens(self) -> bool:
        had, self.hides = self.hides, False
        return had


def test_a_migration_whose_query_is_incomplete_reads_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ClockedPolls(tmp_path, monkeypatch, **MIGRATION)
    run.rws = LateRws(run.clock)
    run.poller = run.create_poller()
    call = run.add_call(-60)
    with pytest.raises(QueryIncomplete):
        run.poll_once()
    assert [name for name, _ in run.sink.submitted] == [call] and len(run.rws.queries) == 2
