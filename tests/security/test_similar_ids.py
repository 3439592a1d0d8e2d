"""Recordings with similar ids: none deletes or replaces a file of another, whatever the metadata contain."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from lab.build import AddedCall
from lab.lab import Lab
from tests.support.calls import add_short, log_of, muxed_entries, write_config
from tests.support.daemon import FAST_RETRY, MuxerProcess, run_muxer, wait_until
from tests.support.muxer_runs import labelled_ids

Make = Callable[..., Lab]
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}
TIMEOUT_SECONDS = 60


class CallTemplate:
    """A call before it is muxed, which can be added again under other ids."""

    def __init__(self, lab: Lab, call: AddedCall) -> None:
        self._lab = lab
        self._call = copy.deepcopy(lab.store.get_call(call.id) or {})
        self._screens = copy.deepcopy((lab.store.get_screen(call.id) or {})["mediaFiles"])

    def add_copy(self, recording_id: str) -> None:
        """Add the call under another id, with the same sources."""
        for media in self._screens:
            self._lab.store.add_screen_media(recording_id, self._lab.region, copy.deepcopy(media))
        self._lab.store.add_call(copy.deepcopy(self._call) | {"id": recording_id})


def stored_screens(lab: Lab) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (lab.site.media.folder / "screens").iterdir()}


@pytest.mark.parametrize("ids", [("GIR_0001", "GIR:0001"), ("x" * 56, "x" * 57), ("GIR_0001", "gir_0001")])
def test_metadata_that_list_the_file_of_another_recording_cause_no_deletion(make_lab: Make, ids: tuple[str, str]) -> None:
    victim, attacker = ids
    lab = make_lab(encryption_group="empty")
    (call,) = add_short(lab, [0])
    template = CallTemplate(lab, call)
    template.add_copy(victim)
    config = write_config(lab, **MIGRATION)
    assert run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY).process.returncode == 0
    (published,) = muxed_entries(lab, victim)
    before = stored_screens(lab)
    template.add_copy(attacker)
    # The file of the other recording, listed as one without one of the screen files.
    forged = copy.deepcopy(published) | {"parameters": {**published["parameters"], "muxed_mediaIds": [call.audio_id]}}
    lab.store.add_screen_media(attacker, lab.region, forged)
    with MuxerProcess(write_config(lab, "polling")) as muxer:
        wait_until(
            lambda: attacker in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log_of(lab.folder / "polling" / "muxer.cfg")
        )
        assert muxer.stop() == 0
    after = stored_screens(lab)
    assert {name: after.get(name) for name in before} == before
    assert len(muxed_entries(lab, attacker)) == 2 and len(muxed_entries(lab, victim)) == 1


def test_ids_that_differ_in_case_only_get_names_that_differ_in_more(make_lab: Make) -> None:
    lab = make_lab(encryption_group="empty")
    (call,) = add_short(lab, [0])
    template = CallTemplate(lab, call)
    for recording_id in ("GIR_0001", "gir_0001"):
        template.add_copy(recording_id)
    assert run_muxer(write_config(lab, **MIGRATION), seconds=TIMEOUT_SECONDS, **FAST_RETRY).process.returncode == 0
    names = [muxed_entries(lab, recording_id)[0]["mediaId"].lower() for recording_id in ("GIR_0001", "gir_0001")]
    assert len(set(names)) == 2
