"""The queries of the deployment guide, as the lab's RWS understands them."""

from urllib.parse import parse_qsl

import pytest

from lab.query import BadParameter, recording_filter
from muxer.polling.window import migration_query

PEOPLE = [
    {"contact": {"userName": "agent1", "firstName": "Alice", "lastName": "Baker"}, "data": {"key": "tom"}},
    {"contact": {"userName": "agent2", "firstName": "Bruno", "lastName": "Amber"}},
    {"data": {"state": "SRSScreenRecordingStateStarted"}},
]
CALL = {
    "id": "C1",
    "startTime": "2024-01-02T10:00:00.000+0000",
    "stopTime": "2024-01-02T11:00:00+01:00",
    "callerPhoneNumber": "+1 (650) 555-0142",
    "dialedPhoneNumber": "Sales",
    "eventHistory": PEOPLE,
}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("callerPhoneNumber=16505550142", True),
        ("callerPhoneNumber=%2B1-650-555-0142", True),
        ("callerPhoneNumber=1650*", True),
        ("callerPhoneNumber=*0142", True),
        ("callerPhoneNumber=1650555014", False),
        ("dialedPhoneNumber=Sales", True),
        ("dialedPhoneNumber=sales", False),
        ("dialedPhoneNumber=S*s", True),
        ("userName=ALICE", True),
        ("userName=Ali*", True),
        ("userName=Ali", False),
        ("userName=nobody+Baker", True),
        ("userName=Alice+AND+Amber", True),
        ("userName=Alice+AND+nobody", False),
        ("userName=nobody+AND+Alice+Bruno", True),
        ("userData=tom", True),
        ("userData=to*", True),
        ("userData=to", False),
        ("userData=Tom", False),
        ("userData=jerry+tom", True),
        ("userData=key", False),
        ("userData=SRSScreenRecordingStateStarted&userName=nobody", False),
    ],
)
def test_the_queries_of_the_guide(query: str, found: bool) -> None:
    assert recording_filter(dict(parse_qsl(query)))(CALL) == found


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("callerPhoneNumber=+1 (650) 555-0142", True),
        ("callerPhoneNumber=+1 (650)*", True),
        ("callerPhoneNumber=*", True),
        ("callerPhoneNumber=1 (650)", False),
        ("dialedPhoneNumber=S*l*s", True),
        ("dialedPhoneNumber=S*L*s", False),
        ("startTime=1704189600000&endTime=1704189600000", True),
        ("startTime=1704189600001", False),
        ("endTime=1704189599999", False),
        ("userName=nobody alice", True),
        ("userName=a*e AND *MBER", True),
        ("userName=Alice and nobody", True),
        ("userName=Alice AND", True),
        ("userName=Alice AND AND Amber", True),
        ("userName=nobody AND Alice", False),
        ("userName=Ali Amb", False),
        ("userData=jerry to*", True),
        ("userData=jerry to", False),
        ("userData=TOM", False),
        ("userData=tom&userName=nobody", False),
    ],
)
def test_queries_match_as_the_guide_states(written: str, found: bool) -> None:
    assert recording_filter(dict(parse_qsl(migration_query(written, 100))))(CALL) == found


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [("1704189600000", "1704189600000", True), ("1704189600001", "", False), ("", "1704189599999", False)],
)
def test_times_in_every_iso_form(start: str, end: str, found: bool) -> None:
    assert recording_filter({"startTime": start, "endTime": end})(CALL) == found


def test_a_bad_time_is_refused_before_any_recording_is_looked_at() -> None:
    with pytest.raises(BadParameter, match="endTime"):
        recording_filter({"endTime": "tomorrow"})


def test_recording_without_people_or_numbers_is_accepted() -> None:
    bare = {"startTime": CALL["startTime"], "stopTime": CALL["stopTime"], "eventHistory": [{}]}
    assert recording_filter({})(bare)
    for name in ("callerPhoneNumber", "dialedPhoneNumber", "userName", "userData"):
        assert not recording_filter({name: "x"})(bare)
