"""The two query options: the configured text, the parameters that reach RWS, and the recordings that RWS finds."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

import pytest

from lab.lab import Lab
from tests.support.calls import log_messages, log_of, write_config
from tests.support.daemon import MuxerProcess, run_muxer, wait_until
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
BUILT_IN = {"userData": "SRSScreenRecordingStateStarted", "scanAndScroll": "true"}
WINDOW = ["startTime", "endTime", "limit"]
VERSION = "/api/v2/diagnostics/version"


def first_query(lab: Lab) -> dict[str, str]:
    """Return the parameters of the first query of call recordings, each of which it has once."""
    paths = [urlsplit(request.path) for request in lab.store.served_requests if request.service == "rws"]
    pairs = parse_qsl(next(path.query for path in paths if path.path.endswith("/recordings")), keep_blank_values=True)
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize(
    ("version", "configured", "extra"),
    spread_variants(
        [
            ("8.5.201.14", "", BUILT_IN),
            ("8.5.201.13", "", {}),
            ("8.5.205", "", {}),
            ("8.5.205.40", "disable", {}),
            ("8.5.201.13", "userName=Alice AND Amber", {"userName": "Alice AND Amber"}),
            ("8.5.205.40", "userData=SRSScreenRecordingStateStarted>anAndScroll=true", BUILT_IN),
        ],
        2,
    ),
    ids=["just new enough", "too old", "unreadable", "disabled", "own", "misprint"],
)
def test_the_extra_query_of_a_poll(make_lab: Make, version: str, configured: str, extra: dict[str, str]) -> None:
    lab = make_lab(version=version)
    config = write_config(lab, advanced__call_recording_extra_query_string=configured)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "poll done" in log_messages(log_of(config)), TIMEOUT_SECONDS, "a poll", log_of(config))
        assert muxer.stop() == 0
    query = first_query(lab)
    assert [name for name in query if name in WINDOW] == WINDOW
    assert {name: value for name, value in query.items() if name not in WINDOW} == extra
    version_requests = [request for request in lab.store.served_requests if request.path == VERSION]
    assert bool(version_requests) is not bool(configured)
    warned = [message for message in log_messages(log_of(config)) if "no readable version (8.5.205)" in message]
    assert bool(warned) is (version == "8.5.205")
    assert ("misprint" in muxer.err) is (">" in configured)


@pytest.mark.parametrize("name", spread_variants(WINDOW, 3))
def test_time_window_in_extra_query_is_refused(make_lab: Make, name: str) -> None:
    lab = make_lab()
    done = run_muxer(
        write_config(lab, advanced__call_recording_extra_query_string=f"userName=x&{name}=5"), seconds=TIMEOUT_SECONDS
    )
    assert done.process.returncode == 2
    assert f"[advanced] call_recording_extra_query_string = 'userName=x&{name}=5': must not contain {name}" in done.err
    assert not lab.store.served_requests


CALL = {
    "id": "C1",
    "startTime": "2024-01-02T10:00:00.000+0000",
    "stopTime": "2024-01-02T10:05:00.000+0000",
    "callerPhoneNumber": "+49 (89) 555-0142",
    "dialedPhoneNumber": "Sales100",
    "mediaFiles": [],
    "eventHistory": [
        {"contact": {"userName": "mueller7", "firstName": "Jörg", "lastName": "Müller"}, "data": {"key": "tomas"}},
        {"contact": {"userName": "amber", "firstName": "Ann-Kathrin", "lastName": "O'Neill"}, "data": {"city": "A+B é&ß"}},
    ],
}
SIX_PARAMETERS = {
    "callerPhoneNumber": "+49 (89) 555*",
    "dialedPhoneNumber": "S*100",
    "startTime": "1704189600000",
    "endTime": "1704189900000",
    "userName": "JÖRG AND O'N* AND Amber",
    "userData": "A+B*é&ß*",
}


@pytest.mark.parametrize(
    ("changed", "found"),
    spread_variants(
        [
            ({}, True),
            ({"userName": "nobody müller", "userData": "jerry tom*"}, True),
            ({"dialedPhoneNumber": "s*100"}, False),
            ({"userName": "Jörg AND nobody"}, False),
            ({"userData": "100% tom"}, False),
        ],
        2,
    ),
    ids=str,
)
def test_all_six_parameters_reach_rws_unchanged_and_match_the_guide(
    make_lab: Make, changed: dict[str, str], found: bool
) -> None:
    lab = make_lab()
    lab.store.add_call(CALL | {"region": lab.region})
    meant = SIX_PARAMETERS | changed
    written = "&".join(f"{name}={value.replace('&', '%26')}" for name, value in meant.items())
    done = run_muxer(write_config(lab, advanced__call_recording_query_string=written), seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0, done.err
    assert first_query(lab) == {**meant, "limit": "100"}
    assert f"{int(found)} recordings found" in done.out
