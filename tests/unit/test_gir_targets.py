"""Which muxed files a call needs, and which exist (gir-api, section 5)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.fleet.orders import MAX_FILE_LENGTH
from muxer.gir.models import CallRecording, ScreenRecording, format_time
from muxer.gir.muxed_names import muxed_name
from muxer.gir.targets import MuxTarget, TargetOptions, TargetSelection, select_targets

START = datetime(2024, 1, 2, 10, 0, 0, tzinfo=UTC)
Json = dict[str, Any]


def earlier_name(*sources: str, recording_id: str = "") -> str:
    """Return the file name that earlier versions used for a muxed file of C1."""
    made_of = "\0".join(([recording_id] if recording_id else []) + sorted(sources))
    return f"C1_{hashlib.sha256(made_of.encode()).hexdigest()[:20]}_muxed.mp4"


EARLIER_NAME = earlier_name("a.mp3", "s1")


def time_at(seconds: float) -> str:
    return format_time(START + timedelta(seconds=seconds))


def audio_entry(media_id: str = "a.mp3", begin: float = 0, end: float = 60, **fields: Any) -> Json:
    return {"mediaId": media_id, "type": "audio/mp3", "startTime": time_at(begin), "stopTime": time_at(end)} | fields


def screen_entry(media_id: str, begin: float = 0, end: float = 60, agent: str = "agent1", **fields: Any) -> Json:
    parameters = {"region": "r1", "contact": {"userName": agent}}
    times = {"startTime": time_at(begin), "stopTime": time_at(end)}
    return {"mediaId": media_id, "type": "video/mp4", "parameters": parameters} | times | fields


def muxed_entry(media_id: str, sources: Sequence[str]) -> Json:
    return screen_entry(media_id) | {"parameters": {"muxed_mediaIds": list(sources)}}


def select_recording(
    audios: Sequence[Json],
    screens: Sequence[Json],
    *,
    labels: Sequence[str] = (),
    superseded: bool = True,
    label: bool = True,
    recording_id: str = "C1",
    blank: bool = False,
) -> TargetSelection:
    call = CallRecording.from_json(
        {"id": recording_id, "region": "r1", "mediaFiles": list(audios), "labels": [{"name": item} for item in labels]}
    )
    recording = ScreenRecording.from_json({"id": recording_id, "mediaFiles": list(screens)})
    return select_targets(call, recording, delete_superseded=superseded, label=label, blank_paused=blank)


def only_target(selection: TargetSelection) -> MuxTarget:
    (target,) = selection.targets
    return target


def test_the_audio_comes_first_and_the_screens_follow_in_time_order() -> None:
    target = only_target(
        select_recording(
            [audio_entry()], [screen_entry("late", 40, 60), screen_entry("early", 0, 20), screen_entry("mid", 20, 40)]
        )
    )
    assert target.source_ids == ("a.mp3", "early", "mid", "late")
    assert (target.agent, target.region, target.recording_id) == ("agent1", "r1", "C1")


def test_each_agent_gets_a_separate_muxed_file() -> None:
    targets = select_recording(
        [audio_entry()],
        [screen_entry("s1", agent="anna"), screen_entry("s2", agent="bert"), screen_entry("s3", agent="anna")],
    ).targets
    assert {target.agent: target.source_ids for target in targets} == {
        "anna": ("a.mp3", "s1", "s3"),
        "bert": ("a.mp3", "s2"),
    }
    assert len({target.file_name for target in targets}) == 2


def test_each_audio_file_gets_a_separate_muxed_file_with_the_screens_that_overlap_it() -> None:
    targets = select_recording(
        [audio_entry("a1", 0, 60), audio_entry("a2", 100, 160)],
        [screen_entry("s1", 0, 50), screen_entry("s2", 90, 170), screen_entry("s3", 65, 80)],
    ).targets
    assert sorted(target.source_ids for target in targets) == [("a1", "s1"), ("a2", "s2")]


def test_without_a_screen_recording_no_muxed_file_is_wanted() -> None:
    call = CallRecording.from_json({"id": "C1", "mediaFiles": [audio_entry()]})
    assert select_targets(call, None, delete_superseded=True, label=True) == TargetSelection((), ())
    assert select_recording([audio_entry()], []) == TargetSelection((), ())


def test_a_muxed_file_is_not_a_source() -> None:
    assert only_target(
        select_recording([audio_entry()], [screen_entry("s1"), muxed_entry("m", ["a.mp3", "s1"])])
    ).source_ids == ("a.mp3", "s1")
    assert select_recording([audio_entry()], [muxed_entry("m", ["a.mp3", "s1"])]).targets == ()


def test_a_call_without_audio_is_a_problem() -> None:
    selection = select_recording([], [screen_entry("s1")])
    assert selection.targets == ()
    assert any("no audio" in problem for problem in selection.problems)


def test_a_file_without_a_start_is_a_problem_and_affects_no_other_file() -> None:
    selection = select_recording([audio_entry()], [screen_entry("s1"), screen_entry("s2") | {"startTime": "soon"}])
    assert only_target(selection).source_ids == ("a.mp3", "s1")
    assert any("s2" in problem for problem in selection.problems)


def test_a_posted_file_with_the_same_sources_is_done() -> None:
    target = only_target(
        select_recording(
            [audio_entry()], [screen_entry("s1"), muxed_entry("m", ["a.mp3", "s1"])], labels=["screenRecording"]
        )
    )
    assert target.published
    assert not target.needs_work


def test_the_order_of_the_posted_sources_does_not_matter() -> None:
    screens = [screen_entry("s1", 0, 9), screen_entry("s2", 9, 20), muxed_entry("m", ["s2", "s1", "a.mp3"])]
    assert only_target(select_recording([audio_entry()], screens)).published


@pytest.mark.parametrize("sources", [["a.mp3"], ["a.mp3", "s1"], ["a.mp3", "s2"], ["b.mp3", "s1", "s2"], ["s1", "s2"], []])
def test_a_posted_file_with_other_sources_does_not_count(sources: list[str]) -> None:
    target = only_target(
        select_recording([audio_entry()], [screen_entry("s1", 0, 9), screen_entry("s2", 9, 20), muxed_entry("m", sources)])
    )
    assert not target.published
    assert target.needs_work


def test_a_muxed_file_of_fewer_screens_is_superseded() -> None:
    screens = [screen_entry("s1", 0, 9), screen_entry("s2", 9, 20), muxed_entry(EARLIER_NAME, ["a.mp3", "s1"])]
    assert [media.media_id for media in only_target(select_recording([audio_entry()], screens)).superseded] == [EARLIER_NAME]


def test_a_superseded_file_remains_to_be_deleted_when_its_successor_is_posted() -> None:
    screens = [
        screen_entry("s1", 0, 9),
        screen_entry("s2", 9, 20),
        muxed_entry(EARLIER_NAME, ["a.mp3", "s1"]),
        muxed_entry("new", ["a.mp3", "s1", "s2"]),
    ]
    target = only_target(select_recording([audio_entry()], screens, labels=["screenRecording"]))
    assert target.published
    assert [media.media_id for media in target.superseded] == [EARLIER_NAME]
    assert target.needs_work


def test_nothing_is_superseded_when_that_is_switched_off() -> None:
    screens = [screen_entry("s1", 0, 9), screen_entry("s2", 9, 20), muxed_entry(EARLIER_NAME, ["a.mp3", "s1"])]
    assert only_target(select_recording([audio_entry()], screens, superseded=False)).superseded == ()


@pytest.mark.parametrize(
    "lie", ["C2_old_muxed.mp4", "C1_x_old_muxed.mp4", "source.mp4", "C1_..%2FC2_muxed.mp4", "C1_old_muxed.mp4.txt"]
)
def test_a_file_of_another_recording_is_never_superseded(lie: str) -> None:
    files = [screen_entry("s1", 0, 9), screen_entry("s2", 9, 20)]
    descriptor = {"storage": "webDAV", "path": lie, "data": {"storagePath": "http://dav/screens/"}}
    by_file = muxed_entry(EARLIER_NAME, ["a.mp3", "s1"]) | {"originalMediaDescriptor": descriptor}
    for entry in (by_file, muxed_entry(lie, ["a.mp3", "s1"])):
        assert only_target(select_recording([audio_entry()], [*files, entry])).superseded == ()


@pytest.mark.parametrize("mine", ["C:1", "C_1", "c_1", "C/1", "x" * 64, "x" * 65, "x" * 64 + "y"])
@pytest.mark.parametrize("victim", ["C:1", "C_1", "C;1", "c:1", "x" * 64, "x" * 66, "X" * 64])
@pytest.mark.parametrize("ending", ["", ".bin"])
@pytest.mark.parametrize("of_earlier_version", [False, True])
def test_no_recording_supersedes_the_file_of_one_with_a_similar_id(
    mine: str, victim: str, ending: str, of_earlier_version: bool
) -> None:
    fewer, prefix = ["a.mp3", "s1"], re.sub("[:;/]", "_", victim)[:64]
    odd = [] if prefix == victim else [victim]
    earlier = hashlib.sha256("\0".join([*odd, *fewer]).encode()).hexdigest()[:20]
    name = (f"{prefix}_{earlier}_muxed.mp4" if of_earlier_version else muxed_name(victim, fewer)) + ending
    files = [screen_entry("s1", 0, 9), screen_entry("s2", 9, 20), muxed_entry(name, fewer)]
    superseded = [
        file.media_id for file in only_target(select_recording([audio_entry()], files, recording_id=mine)).superseded
    ]
    assert superseded == ([name] if mine == victim else [])


def test_the_file_of_other_sources_is_not_superseded_whatever_its_entry_lists() -> None:
    name = muxed_name("C1", ["a.mp3", "s1", "other"])
    files = [screen_entry("s1", 0, 9), screen_entry("s2", 9, 20), muxed_entry(name, ["a.mp3", "s1"])]
    assert only_target(select_recording([audio_entry()], files)).superseded == ()


@given(st.lists(st.text(st.sampled_from("aAbB:_/."), min_size=1, max_size=4), min_size=2, max_size=2, unique=True))
def test_names_of_different_recordings_differ_also_where_case_is_ignored(ids: list[str]) -> None:
    one, other = (muxed_name(each, ["a.mp3", "s1"]).lower() for each in ids)
    assert one != other


def test_a_source_is_never_superseded() -> None:
    for target in select_recording(
        [audio_entry()], [screen_entry("s1"), screen_entry("s2", agent="b"), muxed_entry(EARLIER_NAME, ["a.mp3", "s1"])]
    ).targets:
        assert not {"s1", "s2", "a.mp3"} & {media.media_id for media in target.superseded}


def test_the_muxed_file_of_another_agent_or_another_audio_is_not_superseded() -> None:
    screens = [screen_entry("s1", 0, 9), screen_entry("s2", 9, 20), screen_entry("o1", agent="other")]
    screens += [
        muxed_entry(EARLIER_NAME, ["a.mp3", "o1"]),
        muxed_entry(EARLIER_NAME, ["b.mp3", "s1"]),
        muxed_entry(EARLIER_NAME, ["s1"]),
    ]
    assert all(target.superseded == () for target in select_recording([audio_entry()], screens).targets)


def test_a_screen_file_that_vanishes_from_the_metadata_replaces_nothing() -> None:
    target = only_target(
        select_recording(
            [audio_entry()], [screen_entry("s1"), muxed_entry("full", ["a.mp3", "s1", "s2"])], labels=["screenRecording"]
        )
    )
    assert target.published
    assert target.superseded == ()


@pytest.mark.parametrize(
    ("labels", "label", "missing"),
    [([], True, True), (["screenRecording"], True, False), ([], False, False), (["x"], True, True)],
)
def test_a_missing_label_is_work_when_labels_are_wanted(labels: list[str], label: bool, missing: bool) -> None:
    target = only_target(
        select_recording(
            [audio_entry()], [screen_entry("s1"), muxed_entry("m", ["a.mp3", "s1"])], labels=labels, label=label
        )
    )
    assert (target.label_missing, target.needs_work) == (missing, missing)


def test_one_encrypted_source_makes_the_target_encrypted() -> None:
    assert not only_target(select_recording([audio_entry()], [screen_entry("s1")])).is_encrypted
    assert only_target(select_recording([audio_entry()], [screen_entry("s1", pkcs7="PEM")])).is_encrypted
    assert only_target(select_recording([audio_entry(pkcs7="PEM")], [screen_entry("s1")])).is_encrypted


def test_the_name_contains_the_id_of_the_call_and_shows_that_it_is_muxed() -> None:
    name = only_target(select_recording([audio_entry()], [screen_entry("s1")])).file_name
    assert name.startswith("C1_")
    assert name.endswith("_muxed.mp4")


IDS = st.lists(st.text(st.sampled_from("ab1_-."), min_size=1, max_size=6), min_size=1, max_size=5, unique=True)


@given(IDS, st.randoms(use_true_random=False))
def test_the_name_is_a_function_of_the_set_of_sources_and_of_nothing_else(names: list[str], random: Any) -> None:
    screens = [screen_entry(f"s{name}", number * 9, number * 9 + 9) for number, name in enumerate(names)]
    first = only_target(select_recording([audio_entry()], screens))
    shuffled = [
        {**screen, "size": "1", "startTime": time_at(random.randint(0, 59)), "stopTime": time_at(60)} for screen in screens
    ]
    random.shuffle(shuffled)
    second = only_target(
        select_recording([audio_entry(size="9")], [*shuffled, muxed_entry("m", ["a.mp3"])], labels=["screenRecording"])
    )
    assert first.file_name == second.file_name


@given(IDS, IDS)
def test_different_sources_give_a_different_name(some: list[str], others: list[str]) -> None:
    one, other = (
        only_target(select_recording([audio_entry()], [screen_entry(f"s{name}") for name in names]))
        for names in (some, others)
    )
    assert (one.file_name == other.file_name) == (set(some) == set(others))


def test_a_source_that_the_metadata_list_twice_is_one_source() -> None:
    once, twice = (only_target(select_recording([audio_entry()], [screen_entry("s1")] * count)) for count in (1, 2))
    assert twice.source_ids == ("a.mp3", "s1")
    assert twice.file_name == once.file_name


def test_two_recordings_never_share_a_name_even_if_their_files_do() -> None:
    ids = ("a/b", "a:b", "a_b", "x" * 80, "x" * 81)
    names = {
        only_target(select_recording([audio_entry()], [screen_entry("s1")], recording_id=recording_id)).file_name
        for recording_id in ids
    }
    assert len(names) == 5


@pytest.mark.parametrize("recording_id", ["../../etc/passwd", "a/b c%2F", ".hidden", "-rf", "ü" * 300, "x" * 500])
def test_the_name_is_a_plain_file_name_whatever_the_id_of_the_call(recording_id: str) -> None:
    call = CallRecording.from_json({"id": recording_id, "mediaFiles": [audio_entry()]})
    recording = ScreenRecording.from_json({"id": recording_id, "mediaFiles": [screen_entry("s1")]})
    name = only_target(select_targets(call, recording, delete_superseded=True, label=True)).file_name
    assert all(char.isascii() and (char.isalnum() or char in "._-") for char in name)
    assert name[0] not in ".-"
    assert len(name) < 120


def test_a_remuxed_file_gets_a_name_that_no_file_of_the_same_sources_has() -> None:
    fresh = only_target(select_recording([audio_entry()], [screen_entry("s")]))
    first, second = fresh.file_name, f"{fresh.file_name.removesuffix('_muxed.mp4')}-2_muxed.mp4"
    assert fresh.next_free_name == first

    def next_name(*names: str) -> str:
        return only_target(
            select_recording([audio_entry()], [screen_entry("s"), *(muxed_entry(name, ["a.mp3", "s"]) for name in names)])
        ).next_free_name

    assert next_name(first) == next_name(f"{first}.bin") == second
    assert next_name(f"{second}.bin") == first
    assert next_name("foreign_muxed.mp4") == first
    assert next_name(first, second) == second.replace("-2_", "-3_")


def test_the_twins_are_those_of_exactly_the_same_sources_and_never_a_source() -> None:
    fewer = muxed_name("C1", ["a.mp3"])
    muxed_entries = [
        muxed_entry("same", ["s", "a.mp3"]),
        muxed_entry(fewer, ["a.mp3"]),
        muxed_entry("more", ["a.mp3", "s", "x"]),
    ]
    target = only_target(
        select_recording([audio_entry()], [screen_entry("s"), *muxed_entries, muxed_entry("a.mp3", ["a.mp3", "s"])])
    )
    assert [file.media_id for file in target.same_source_files] == ["same"]
    assert [item.media_id for item in target.superseded] == [fewer]


# Paused spans, [advanced] blank_paused


MASKS = [{"time": time_at(5), "type": "paused"}, {"time": time_at(8), "type": "resume"}]
OTHER_MASKS = [{"time": time_at(5), "type": "paused"}, {"time": time_at(9), "type": "resume"}]


def masked_target(media: Sequence[Json], masks: Sequence[Json] = MASKS, *, blank: bool = True, **options: Any) -> MuxTarget:
    return only_target(
        select_recording([audio_entry(masks=list(masks))], media, blank=blank, labels=["screenRecording"], **options)
    )


def test_the_paused_spans_are_those_of_the_audio_and_only_with_the_option() -> None:
    assert masked_target([screen_entry("s")]).paused == ((5_000_000, 8_000_000),)
    assert masked_target([screen_entry("s")], blank=False).paused == ()


def test_each_agent_s_file_has_the_paused_spans() -> None:
    targets = select_recording(
        [audio_entry(masks=MASKS)], [screen_entry("s1", agent="a"), screen_entry("s2", agent="b")], blank=True
    ).targets
    assert [target.paused for target in targets] == [((5_000_000, 8_000_000),)] * 2


def test_masks_change_the_name_and_their_order_does_not() -> None:
    plain, blank = masked_target([screen_entry("s")], blank=False).file_name, masked_target([screen_entry("s")]).file_name
    assert len({plain, blank, masked_target([screen_entry("s")], OTHER_MASKS).file_name}) == 3
    assert masked_target([screen_entry("s")], MASKS[::-1]).file_name == blank


@pytest.mark.parametrize(
    "masks", [[], None, "", [{"time": time_at(-9), "type": "paused"}, {"time": time_at(-5), "type": "resume"}]]
)
def test_without_a_paused_span_the_name_and_the_done_files_are_unchanged(masks: Any) -> None:
    plain = only_target(select_recording([audio_entry()], [screen_entry("s")])).file_name
    for name in (plain, f"{plain}.bin", plain.replace("_muxed", "-2_muxed"), EARLIER_NAME, "of another program.mp4"):
        target = only_target(
            select_recording([audio_entry(masks=masks)], [screen_entry("s"), muxed_entry(name, ["a.mp3", "s"])], blank=True)
        )
        assert (target.file_name, target.published, target.superseded) == (plain, True, ())


def name_variants(name: str) -> list[str]:
    again = name.replace("_muxed", "-2_muxed")
    return [name, f"{name}.bin", again, f"{again}.bin"]


@pytest.mark.parametrize("form", range(4))
def test_a_file_with_other_paused_spans_is_replaced_and_one_with_the_same_is_not(form: int) -> None:
    names = {
        "plain": masked_target([screen_entry("s")], blank=False).file_name,
        "blank": masked_target([screen_entry("s")]).file_name,
        "other": masked_target([screen_entry("s")], OTHER_MASKS).file_name,
    }
    wanted = {"plain": (MASKS, False), "blank": (MASKS, True), "other": (OTHER_MASKS, True)}
    for there, name in names.items():
        entry = muxed_entry(name_variants(name)[form], ["a.mp3", "s"])
        for which, (masks, blank) in wanted.items():
            target = masked_target([screen_entry("s"), entry], masks, blank=blank)
            replaced = [file.media_id for file in target.superseded]
            same = which == there
            assert (target.published, replaced) == (same, [] if same else [entry["mediaId"]])
            assert [item.media_id for item in target.same_source_files] == ([entry["mediaId"]] if same else [])
            assert masked_target([screen_entry("s"), entry], masks, blank=blank, superseded=False).superseded == ()


def test_files_of_earlier_versions_with_paused_spans_visible_are_replaced_when_they_are_ours() -> None:
    ours = earlier_name("a.mp3", "s")
    for name, replaced in ((ours, [ours]), ("of another program.mp4", []), (ours.replace("C1", "C2"), [])):
        target = masked_target([screen_entry("s"), muxed_entry(name, ["a.mp3", "s"])])
        assert (target.published, [file.media_id for file in target.superseded]) == (False, replaced)
        assert masked_target([screen_entry("s"), muxed_entry(name, ["a.mp3", "s"])], blank=False).published


def test_a_source_with_such_a_name_is_never_replaced() -> None:
    name = masked_target([screen_entry("s")], blank=False).file_name
    media = [screen_entry("s"), screen_entry(name, agent="other"), muxed_entry(name, ["a.mp3", "s"])]
    targets = select_recording([audio_entry(masks=MASKS)], media, blank=True).targets
    assert [target.superseded for target in targets] == [(), ()]


def test_a_fuller_file_with_the_same_paused_spans_satisfies_a_target() -> None:
    full = masked_target([screen_entry("s"), screen_entry("t")]).file_name
    assert masked_target([screen_entry("s"), muxed_entry(full, ["a.mp3", "s", "t"])]).published
    shown = masked_target([screen_entry("s"), screen_entry("t")], blank=False).file_name
    target = masked_target([screen_entry("s"), muxed_entry(shown, ["a.mp3", "s", "t"])])
    assert (target.published, target.superseded) == (False, ())


def test_the_name_is_plain_and_short_with_paused_spans_too() -> None:
    call = CallRecording.from_json({"id": "ü" * 300, "mediaFiles": [audio_entry(masks=MASKS)]})
    recording = ScreenRecording.from_json({"id": "ü" * 300, "mediaFiles": [screen_entry("s")]})
    name = only_target(select_targets(call, recording, delete_superseded=True, label=True, blank_paused=True)).file_name
    assert all(char.isascii() and (char.isalnum() or char in "._-") for char in name) and len(name) <= MAX_FILE_LENGTH


def test_invalid_masks_are_a_problem_only_with_the_option() -> None:
    for blank in (False, True):
        problems = select_recording([audio_entry(masks=["odd"])], [screen_entry("s")], blank=blank).problems
        assert any("masks" in problem for problem in problems) == blank


@pytest.mark.parametrize(("label", "may_label", "missing"), [(True, True, True), (True, False, False), (False, True, False)])
def test_a_label_is_missing_when_it_is_wanted_and_not_refused(label: bool, may_label: bool, missing: bool) -> None:
    call = CallRecording.from_json({"id": "C1", "region": "r", "mediaFiles": [audio_entry()]})
    screen = ScreenRecording.from_json({"id": "C1", "mediaFiles": [screen_entry("s1")]})
    [target] = TargetOptions(label, delete_superseded=True).select_targets(call, screen, may_label=may_label).targets
    assert target.label_missing is missing
