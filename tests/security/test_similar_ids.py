"""Recordings with similar ids, in the real process: none deletes or replaces a file of another, whatever metadata say."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from tests.support.calls import add_short, configure, log_of, muxed
from tests.support.daemon import IMPATIENT, Muxer, run, wait_until
from tests.support.running import labelled

from muxer.lab.build import AddedCall
from muxer.lab.lab import Lab

Make = Callable[..., Lab]
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}
SECONDS = 60


class Template:
    """A call as it is before it is muxed, to be added again under other ids."""

    def __init__(self, lab: Lab, call: AddedCall) -> None:
        self._lab = lab
        self._call = copy.deepcopy(lab.store.call(call.id) or {})
        self._screens = copy.deepcopy((lab.store.screen(call.id) or {})["mediaFiles"])

    def add(self, recording_id: str) -> None:
        """Add the call under another id, with the same sources."""
        for media in self._screens:
            self._lab.store.add_screen_media(recording_id, self._lab.region, copy.deepcopy(media))
        self._lab.store.add_call(copy.deepcopy(self._call) | {"id": recording_id})


def files(lab: Lab) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (lab.site.media.folder / "screens").iterdir()}


@pytest.mark.parametrize("ids", [("GIR_0001", "GIR:0001"), ("x" * 56, "x" * 57), ("GIR_0001", "gir_0001")])
def test_metadata_that_list_the_file_of_another_recording_delete_nothing(make_lab: Make, ids: tuple[str, str]) -> None:
    victim, attacker = ids
    lab = make_lab(encryption_group="empty")
    (call,) = add_short(lab, [0])
    template = Template(lab, call)
    template.add(victim)
    config = configure(lab, **MIGRATION)
    assert run(config, seconds=SECONDS, **IMPATIENT).process.returncode == 0
    (published,) = muxed(lab, victim)
    before = files(lab)
    template.add(attacker)
    # The file of the other recording, passed off as one that lacks a screen file.
    forged = copy.deepcopy(published) | {"parameters": {**published["parameters"], "muxed_mediaIds": [call.audio_id]}}
    lab.store.add_screen_media(attacker, lab.region, forged)
    with Muxer(configure(lab, "polling")) as muxer:
        wait_until(lambda: attacker in labelled(lab), SECONDS, "the label", log_of(lab.folder / "polling" / "muxer.cfg"))
        assert muxer.stop() == 0
    after = files(lab)
    assert {name: after.get(name) for name in before} == before
    assert len(muxed(lab, attacker)) == 2 and len(muxed(lab, victim)) == 1


def test_ids_that_differ_in_case_only_get_names_that_differ_in_more(make_lab: Make) -> None:
    lab = make_lab(encryption_group="empty")
    (call,) = add_short(lab, [0])
    template = Template(lab, call)
    for recording_id in ("GIR_0001", "gir_0001"):
        template.add(recording_id)
    assert run(configure(lab, **MIGRATION), seconds=SECONDS, **IMPATIENT).process.returncode == 0
    names = [muxed(lab, recording_id)[0]["mediaId"].lower() for recording_id in ("GIR_0001", "gir_0001")]
    assert len(set(names)) == 2
