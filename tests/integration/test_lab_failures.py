"""Scripted failures of the lab's servers, and the lab's record of requests."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import requests

from lab.service import LabRequest, LabResponse, LabServer
from lab.store import RecordingStore
from lab.switches import Switches

CALL = {"id": "C1", "region": "r1", "startTime": "2024-01-02T10:00:00Z", "mediaFiles": []}


@dataclass
class EchoService:
    """A service that returns the method, or fails."""

    name: str = "rws"

    def handle_request(self, request: LabRequest) -> LabResponse:
        if "break" in request.target:
            raise RuntimeError("broken")
        return LabResponse.with_envelope({"method": request.method, "body": request.body.decode()})


@pytest.fixture
def server() -> Iterator[LabServer]:
    server = LabServer(EchoService(), RecordingStore())
    server.start()
    yield server
    server.stop()


def get_response(server: LabServer, path: str = "/a") -> requests.Response:
    return requests.get(server.url + path, timeout=10)


def test_switches_refuse_impossible_behaviour() -> None:
    with pytest.raises(ValueError, match="link_form"):
        replace(Switches(), link_form="elsewhere")


def test_scripted_failures_come_first_and_the_given_number_of_times(server: LabServer) -> None:
    server.store.fail_next("rws", "GET", "/a?x", 503, times=2, headers={"Retry-After": "1"})
    server.store.fail_next("rcs", "GET", "/a", 500)
    server.store.fail_next("rws", "POST", "/a", 500)
    responses = [get_response(server, path) for path in ("/a", "/a?x=1", "/a?x=2", "/a?x=3")]
    assert [response.status_code for response in responses] == [200, 503, 503, 200]
    assert responses[1].headers["Retry-After"] == "1" and responses[1].json()["statusCode"] == 4


def test_bodies_may_be_short_and_connections_cut(server: LabServer) -> None:
    server.store.fail_next("rws", "GET", "/a", 200, headers={"Content-Length": "100"}, body=b"short")
    with pytest.raises(requests.RequestException):
        get_response(server)
    server.store.fail_next("rws", "GET", "/a", 0)
    with pytest.raises(requests.ConnectionError):
        get_response(server)
    assert [record.status for record in server.store.served_requests] == [200, 0]


def test_an_error_in_the_lab_itself_is_a_response(server: LabServer, caplog: pytest.LogCaptureFixture) -> None:
    response = get_response(server, "/break")
    assert (response.status_code, response.json()["statusCode"]) == (500, 4)
    assert "broken" in caplog.text


def test_requests_are_recorded_with_their_query(server: LabServer) -> None:
    get_response(server, "/a?limit=1")
    assert requests.put(server.url + "/b", data="text", timeout=10).json()["body"] == "text"
    found = [(r.service, r.method, r.path, r.status) for r in server.store.served_requests]
    assert found == [("rws", "GET", "/a?limit=1", 200), ("rws", "PUT", "/b", 200)]


def test_store_returns_copies() -> None:
    store = RecordingStore()
    store.add_call(CALL)
    copy = store.get_call("C1")
    assert copy is not None
    copy["mediaFiles"].append("mine")
    assert store.get_call("C1") == CALL
