"""What an audit finds wrong with one call, by rules that need no service."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muxer.audit.call_rules import CallVerdict, Look, SiteRules, count_sizes, find_wrong_recipients, judge_call, wanted_looks
from muxer.audit.findings import TEXTS, Finding, FindingKind
from muxer.gir.labels import LABEL
from muxer.gir.models import CallRecording, ScreenRecording, format_time
from muxer.gir.targets import TargetSelection, select_targets
from muxer.storage.base import ObjectInfo

NOW = datetime(2026, 3, 10, tzinfo=UTC)
START = NOW - timedelta(days=5)
ENVELOPE = "-----BEGIN PKCS7-----\nAA==\n-----END PKCS7-----\n"
OURS, OTHERS, FORMER = frozenset({b"ours"}), frozenset({b"others"}), frozenset({b"former"})
SIZE = 1000


def media(media_id: str, kind: str, seconds: int = 60, **more: Any) -> dict[str, Any]:
    times = {"startTime": format_time(START), "stopTime": format_time(START + timedelta(seconds=seconds))}
    parameters = {"contact": {"userName": "agent"}, "region": "r"} | more.pop("parameters", {})
    descriptor = {"storage": "webDAV", "path": media_id, "data": {"storagePath": "http://dav/screens"}}
    return {
        "mediaId": media_id,
        "type": kind,
        "size": str(SIZE),
        "parameters": parameters,
        "originalMediaDescriptor": descriptor,
        **times,
        **more,
    }


def muxed(media_id: str, *sources: str, **more: Any) -> dict[str, Any]:
    return media(media_id, "video/mp4", parameters={"muxed_mediaIds": list(sources)}, **more)


def judge(
    screens: list[dict[str, Any]],
    *,
    audio: dict[str, Any] | None = None,
    labels: tuple[str, ...] = (LABEL,),
    looks: dict[str, Look] | None = None,
    envelopes: dict[str, frozenset[bytes]] | None = None,
    rules: SiteRules | None = None,
) -> CallVerdict:
    """Judge a call with one audio file; all files are stored with the right length unless `looks` says otherwise."""
    sound = audio or media("audio", "audio/mp3")
    call = CallRecording.from_json(
        {"id": "call", "region": "r", "mediaFiles": [sound], "labels": [{"name": one} for one in labels]}
    )
    screen = ScreenRecording.from_json({"id": "call", "region": "r", "mediaFiles": screens}) if screens else None
    selection = select_targets(call, screen, delete_superseded=True, label=True)
    seen = {media_id: Look(True, ObjectInfo(SIZE)) for media_id in wanted_looks(selection)} | (looks or {})
    found = judge_call(call, selection, seen, envelopes or {}, rules or SiteRules(NOW - timedelta(hours=12)))
    assert all(one.recording == "call" and one.started == START.timestamp() for one in found.findings)
    return found


def kinds(verdict: CallVerdict) -> list[str]:
    return [one.kind.value for one in verdict.findings]


SCREEN = media("screen", "video/mp4")
MUXED = muxed("muxed", "audio", "screen")


def test_a_whole_call_has_no_finding() -> None:
    found = judge([SCREEN, MUXED])
    assert (found.findings, found.files, found.pending) == ((), 1, 0)


def test_a_call_without_screen_files_needs_nothing() -> None:
    assert judge([]) == CallVerdict()


@pytest.mark.parametrize(
    ("screens", "labels", "expected"),
    [
        ([SCREEN], (LABEL,), ["missing"]),
        ([SCREEN], (), ["missing"]),
        ([SCREEN, MUXED], (), ["label_missing"]),
        ([SCREEN, MUXED, muxed("muxed-2", "audio", "screen")], (LABEL,), ["published_twice"]),
        ([media("early", "video/mp4"), SCREEN, MUXED], (LABEL,), ["missing"]),
    ],
)
def test_what_the_muxer_would_still_do_is_found(screens: list[Any], labels: tuple[str, ...], expected: list[str]) -> None:
    assert kinds(judge(screens, labels=labels)) == expected


def test_a_muxed_file_with_more_sources_than_wanted_is_enough() -> None:
    assert kinds(judge([SCREEN, muxed("fuller", "audio", "screen", "gone")])) == []


def test_work_that_the_muxer_still_looks_at_is_pending() -> None:
    found = judge([SCREEN], rules=SiteRules(START - timedelta(hours=1)))
    assert (found.findings, found.pending) == ((), 1)


def test_a_stop_time_in_the_future_keeps_nothing_pending() -> None:
    endless = media("screen", "video/mp4", seconds=3600 * 24 * 365)
    assert kinds(judge([endless])) == ["missing"]


@pytest.mark.parametrize(
    ("look", "expected"),
    [
        (Look(), "file_missing"),
        (Look(True, ObjectInfo(SIZE - 1)), "wrong_length"),
        (Look(unknown="refused"), "unchecked"),
    ],
)
def test_what_the_storage_says_of_the_muxed_file(look: Look, expected: str) -> None:
    assert kinds(judge([SCREEN, MUXED], looks={"muxed": look})) == [expected]


def test_a_muxed_file_without_a_location_cannot_be_checked() -> None:
    assert kinds(judge([SCREEN, MUXED | {"originalMediaDescriptor": None}])) == []
    found = judge_without_look("muxed")
    assert kinds(found) == ["unchecked"]


def judge_without_look(media_id: str) -> CallVerdict:
    call = CallRecording.from_json(
        {"id": "call", "region": "r", "mediaFiles": [media("audio", "audio/mp3")], "labels": [{"name": LABEL}]}
    )
    screen = ScreenRecording.from_json({"id": "call", "region": "r", "mediaFiles": [SCREEN, MUXED]})
    selection = select_targets(call, screen, delete_superseded=True, label=True)
    looks = {one: Look(True, ObjectInfo(SIZE)) for one in wanted_looks(selection) if one != media_id}
    return judge_call(call, selection, looks, {}, SiteRules(NOW))


@pytest.mark.parametrize("gone", ["audio", "screen"])
def test_missing_sources_are_found_once(gone: str) -> None:
    other = media("other", "video/mp4", parameters={"contact": {"userName": "second"}})
    files = [SCREEN, MUXED, other, muxed("muxed-other", "audio", "other")]
    assert kinds(judge(files, looks={gone: Look()})) == ["source_missing"]


def test_a_source_that_only_rws_has_may_not_be_visible() -> None:
    assert kinds(judge_without_look("audio")) == []


class TestEncryption:
    SITE = SiteRules(NOW - timedelta(hours=12), OURS, START - timedelta(days=1))
    LATER = SiteRules(NOW - timedelta(hours=12), OURS, START + timedelta(days=1))
    SECRET = muxed("muxed", "audio", "screen", pkcs7=ENVELOPE)
    SECRET_SCREEN = media("screen", "video/mp4", pkcs7=ENVELOPE)

    def test_a_clear_file_of_an_encrypted_source(self) -> None:
        assert kinds(judge([self.SECRET_SCREEN, MUXED])) == ["not_encrypted"]

    @pytest.mark.parametrize(
        ("screen", "muxed_file"),
        [
            (media("screen", "video/mp4", certAlias=["a"]), MUXED | {"certAlias": ["a"]}),
            (media("screen.bin", "video/mp4"), muxed("muxed.bin", "audio", "screen.bin")),
            (SCREEN, MUXED | {"certAlias": ["a"]}),
        ],
    )
    def test_envelopes_that_rws_does_not_show(self, screen: Any, muxed_file: Any) -> None:
        assert kinds(judge([screen, muxed_file], rules=self.SITE)) == []

    def test_a_missing_envelope_beside_those_of_the_sources(self) -> None:
        assert kinds(judge([self.SECRET_SCREEN, MUXED | {"certAlias": ["a"]}])) == ["not_encrypted"]

    def test_a_clear_file_while_the_certificates_were_in_force(self) -> None:
        assert kinds(judge([SCREEN, MUXED], rules=self.SITE)) == ["not_encrypted"]

    def test_a_clear_file_of_a_time_before_the_certificates(self) -> None:
        assert kinds(judge([SCREEN, MUXED], rules=self.LATER)) == []

    def test_a_file_for_the_current_certificates(self) -> None:
        found = judge([SCREEN, self.SECRET], rules=self.SITE, envelopes={"muxed": OURS})
        assert (kinds(found), found.doubtful) == ([], ())

    def test_an_unreadable_envelope(self) -> None:
        assert kinds(judge([SCREEN, self.SECRET], rules=self.SITE)) == ["wrong_recipient"]

    def test_other_recipients_are_judged_at_the_end(self) -> None:
        found = judge([self.SECRET_SCREEN, self.SECRET], rules=self.SITE, envelopes={"muxed": FORMER, "screen": FORMER})
        assert (kinds(found), found.doubtful, found.source_sets) == ([], (("muxed", FORMER),), frozenset({FORMER}))
        known = [*found.source_sets, OURS]
        assert list(find_wrong_recipients([("call", "muxed", FORMER, 1.0)], known)) == []
        detail = "1 of its 1 recipients are unknown"
        expected = Finding(FindingKind.WRONG_RECIPIENT, "call", "muxed", detail, started=1.0)
        assert list(find_wrong_recipients([("call", "muxed", OTHERS, 1.0)], known)) == [expected]
        [found_part] = find_wrong_recipients([("call", "muxed", FORMER, None)], [OURS | FORMER])
        assert found_part.detail == "some recipients are missing"
        rows = [("call", "muxed", OTHERS, 1.0)]
        assert list(find_wrong_recipients(rows, known, OTHERS | FORMER)) == []
        assert len(list(find_wrong_recipients(rows, known, FORMER))) == 1

    def test_former_recipients_of_clear_sources_are_not_judged_by_later_certificates(self) -> None:
        found = judge([SCREEN, self.SECRET], rules=self.LATER, envelopes={"muxed": FORMER})
        assert (kinds(found), found.doubtful) == ([], ())


def test_problems_of_the_metadata_are_stated() -> None:
    call = CallRecording.from_json({"id": "call", "region": "r", "mediaFiles": [media("audio", "audio/mp3")]})
    found = judge_call(call, TargetSelection((), ("broken",)), {}, {}, SiteRules(NOW))
    assert [(one.kind, one.detail) for one in found.findings] == [
        (FindingKind.UNCHECKED, "its metadata are unusable: broken")
    ]


def test_all_problems_of_a_call_are_one_finding() -> None:
    call = CallRecording.from_json({"id": "call", "region": "r", "mediaFiles": [media("audio", "audio/mp3")]})
    problems = tuple(f"problem {number}" for number in range(7))
    [found] = judge_call(call, TargetSelection((), problems), {}, {}, SiteRules(NOW)).findings
    assert "problem 0; problem 1;" in found.detail and found.detail.endswith("problem 4; and 2 more")


@pytest.mark.parametrize(("size", "length", "expected"), [(None, SIZE, []), ("", SIZE, []), (None, 0, ["wrong_length"])])
def test_metadata_without_a_length_contradict_no_file_with_content(size: Any, length: int, expected: list[str]) -> None:
    screens = [SCREEN, MUXED | {"size": size}]
    assert kinds(judge(screens, looks={"muxed": Look(True, ObjectInfo(length))})) == expected


def test_every_kind_has_its_texts() -> None:
    assert set(TEXTS) == set(FindingKind)


@pytest.mark.parametrize(
    ("length", "true_sizes", "found"),
    [
        (SIZE, {"call", "screen"}, []),
        (SIZE - 1, {"call", "screen"}, ["source_damaged"]),
        (SIZE - 1, {"call"}, []),
        (SIZE + 1, {"call", "screen"}, []),
        (0, set(), ["source_damaged"]),
    ],
)
def test_a_short_source_is_damaged_where_metadata_state_true_sizes(
    length: int, true_sizes: set[str], found: list[str]
) -> None:
    looks = {"screen": Look(True, ObjectInfo(length))}
    rules = SiteRules(NOW - timedelta(hours=12), true_sizes=frozenset(true_sizes))
    assert kinds(judge([SCREEN, MUXED], looks=looks, rules=rules)) == found
    # While the muxer still waits for it, it is no finding.
    assert kinds(judge([SCREEN, MUXED], looks=looks, rules=replace(rules, pending_after=START))) == []


@pytest.mark.parametrize(("lengths", "balance"), [((SIZE, SIZE), 2), ((SIZE, SIZE - 1), 0), ((1, 2), -2), ((SIZE, 0), 1)])
def test_sizes_are_true_when_most_files_have_them(lengths: tuple[int, int], balance: int) -> None:
    screens = (SCREEN, media("second", "video/mp4"))
    call = CallRecording.from_json({"id": "call", "region": "r", "mediaFiles": [media("audio", "audio/mp3")]})
    recording = ScreenRecording.from_json({"id": "call", "region": "r", "mediaFiles": list(screens)})
    selection = select_targets(call, recording, delete_superseded=True, label=True)
    looks = {name: Look(True, ObjectInfo(length)) for name, length in zip(("screen", "second"), lengths, strict=True)}
    assert count_sizes(selection, looks)["screen"] == balance
