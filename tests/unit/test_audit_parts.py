"""The parts of an audit: its span of time, its pace, its state file, recipients of envelopes, names of orphans."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from lab.tools import run_program
from muxer.audit import pace
from muxer.audit.auditor import AuditedCall
from muxer.audit.call_rules import CallVerdict
from muxer.audit.deep_check import DeepCheck, Sample
from muxer.audit.findings import Finding, FindingKind
from muxer.audit.ledger import AuditLedger
from muxer.audit.orphans import recording_of_name
from muxer.audit.pace import Pace
from muxer.audit.spans import SLICE_MS, Span, parse_audit_time
from muxer.crypto.recipients import certificate_recipient, envelope_recipients
from muxer.errors import (
    Code,
    ConfigError,
    EncryptionError,
    LocalResourceError,
    MediaIncomplete,
    MediaNotFound,
    MuxerError,
    Stopped,
)
from muxer.gir.models import CallRecording, MediaFile
from muxer.gir.muxed_names import muxed_name
from muxer.gir.targets import MuxTarget, TargetSelection
from muxer.status.activity import Activity
from muxer.system.allowed_hours import AllowedHours

HOUR_MS = 3_600_000
MARCH = 1_772_323_200_000  # 2026-03-01T00:00:00Z


@pytest.mark.parametrize(
    "text", ["2026-03-01", "2026-03-01T00:00:00Z", "2026-03-01T01:00:00+01:00", "20260301", " 1772323200000 "]
)
def test_times_in_every_form(text: str) -> None:
    assert parse_audit_time(text) == MARCH


@pytest.mark.parametrize("text", ["", "yesterday", "1772323200", "99999999999999", "2026-13-01"])
def test_unusable_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_audit_time(text)


@given(start=st.integers(MARCH, MARCH + 10**9), length=st.integers(1, 40 * SLICE_MS), at=st.integers(0, 40 * SLICE_MS))
def test_each_call_belongs_to_one_slice_and_its_query(start: int, length: int, at: int) -> None:
    whole = Span(start, start + length)
    slices = [one for one in whole.divide() if one.contains(start + at)]
    assert len(slices) == (1 if at < length else 0)
    for one in slices:
        begin, end = (int(part.partition("=")[2]) for part in one.query.split("&"))
        assert begin <= start + at and start + at + 12 * HOUR_MS <= end + SLICE_MS


@pytest.mark.parametrize(
    ("text", "hour", "minutes"),
    [("20-6", 21, 0), ("20-6", 5, 0), ("20-6", 6, 14 * 60), ("20:30-21", 20, 30), ("0-24", 12, None), ("9-17", 8, 60)],
)
def test_allowed_hours(text: str, hour: int, minutes: int | None) -> None:
    if minutes is None:
        with pytest.raises(ValueError, match="hours"):
            AllowedHours.parse(text)
        return
    assert AllowedHours.parse(text).minutes_until(datetime(2026, 3, 1, hour, tzinfo=UTC)) == minutes


@pytest.mark.parametrize("text", ["", "20", "25-3", "20-20", "6pm-6am"])
def test_unusable_hours_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hours"):
        AllowedHours.parse(text)


def test_no_request_passes_outside_the_hours_and_a_stop_ends_the_wait() -> None:
    stop, pauses = threading.Event(), []

    def report_pause(minutes: int) -> None:
        pauses.append(minutes)
        stop.set()

    pace = Pace(1000, AllowedHours.parse("20-6"), stop, report_pause, lambda: datetime(2026, 3, 1, 12, tzinfo=UTC))
    with pytest.raises(Stopped):
        pace.await_turn()
    assert pauses == [8 * 60]


class FakeTime(threading.Event):
    """A clock that only waiting advances, in place of the event of a stop."""

    def __init__(self, begin: datetime) -> None:
        super().__init__()
        self.begin, self.seconds = begin, 0.0

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds += timeout or 0.0
        return False

    def now(self) -> datetime:
        return self.begin + timedelta(seconds=self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime(datetime(2026, 3, 1, 19, 59, tzinfo=UTC))
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


def test_requests_are_as_far_apart_as_the_rate_says(clock: FakeTime) -> None:
    limited, sent = Pace(4, None, clock), []
    for _ in range(5):
        limited.await_turn()
        sent.append(clock.seconds)
    clock.wait(10)  # Time that the audit spends otherwise gives no right to a burst.
    for _ in range(2):
        limited.await_turn()
        sent.append(clock.seconds)
    assert sent == [0, 0.25, 0.5, 0.75, 1, 11, 11.25]


def test_requests_pass_within_the_hours_only(clock: FakeTime) -> None:
    pauses: list[int] = []
    limited, sent = Pace(1 / 3600, AllowedHours.parse("20-6"), clock, pauses.append, clock.now), []
    for _ in range(12):
        limited.await_turn()
        sent.append(clock.now())
    assert [time.hour for time in sent] == [20, 21, 22, 23, 0, 1, 2, 3, 4, 5, 20, 21]
    assert pauses == [1, 14 * 60]


@pytest.mark.parametrize(("text", "count"), [("1/1", 1000), ("1/10", 100), ("3/4", 750)])
def test_a_sample_has_its_share_and_is_the_same_each_time(text: str, count: int) -> None:
    chosen = [number for number in range(1000) if Sample.parse(text).includes(f"call {number}")]
    assert abs(len(chosen) - count) <= 40
    assert chosen == [number for number in range(1000) if Sample.parse(text).includes(f"call {number}")]


@pytest.mark.parametrize("text", ["", "10", "0/10", "2/1", "1/0", "a/b"])
def test_unusable_samples_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="share"):
        Sample.parse(text)


class TestLedger:
    REQUEST: ClassVar[dict[str, object]] = {"from": 1, "query": None}
    FINDING = Finding(FindingKind.MISSING, "call", "file", "detail", "target", 7200.0)

    def test_what_is_recorded_is_there_after_a_restart(self, tmp_path: Path) -> None:
        path = tmp_path / "state"
        ledger = AuditLedger(path, self.REQUEST)
        doubtful = (("file", frozenset({b"\x01\x02"})),)
        verdict = CallVerdict((self.FINDING,), 2, 1, doubtful, frozenset({frozenset({b"\x03"})}))
        ledger.record_calls([("call", 7200.0, True, verdict), ("other", 7300.0, False, CallVerdict())], ["folder"], ["name"])
        ledger.record_checked_names(["asked"], [self.FINDING])
        ledger.close()
        ledger = AuditLedger(path, self.REQUEST)
        assert [ledger.read_fact(name, 0) for name in ("calls", "with_screens", "files", "pending")] == [2, 1, 2, 1]
        assert list(ledger.read_findings()) == [(self.FINDING, "")]
        assert list(ledger.read_hours()) == [(2, 2, 2, 1)]
        assert ledger.is_seen("call") and not ledger.is_seen("new")
        assert ledger.read_folders() == ["folder"]
        assert ledger.is_known_name("name") and ledger.is_known_name("asked") and not ledger.is_known_name("call")
        assert list(ledger.read_doubtful()) == [("call", "file", frozenset({b"\x01\x02"}), 7200.0)]
        assert ledger.read_source_sets() == [frozenset({b"\x03"})]
        ledger.record_repair(self.FINDING, "repaired")
        ledger.end_slice(1)
        assert not ledger.is_seen("call") and ledger.read_fact("slices_done", 0) == 1
        assert list(ledger.read_findings()) == [(self.FINDING, "repaired")]
        assert ledger.count_findings() == {FindingKind.MISSING: 1}
        assert ledger.find_finding(FindingKind.MISSING, "call", "file") == self.FINDING
        assert ledger.find_finding(FindingKind.ORPHAN, "call", "file") is None
        one = {FindingKind.MISSING: 1}
        assert [ledger.count_open(closed) for closed in ((), ("repaired", "deleted"), ("deleted",))] == [one, {}, one]

    def test_a_part_that_fails_is_not_recorded_at_all(self, tmp_path: Path) -> None:
        ledger = AuditLedger(tmp_path / "state", self.REQUEST)

        def break_off() -> Iterator[str]:
            yield "name"
            raise Stopped("stopped")

        with pytest.raises(Stopped):
            ledger.record_calls([("call", 7200.0, True, CallVerdict((self.FINDING,)))], ["folder"], break_off())
        assert not ledger.is_seen("call") and list(ledger.read_findings()) == ledger.read_folders() == []

    def test_it_is_private(self, tmp_path: Path) -> None:
        AuditLedger(tmp_path / "state", self.REQUEST).close()
        assert os.name != "posix" or (tmp_path / "state").stat().st_mode & 0o777 == 0o600

    def test_that_of_another_audit_is_refused(self, tmp_path: Path) -> None:
        AuditLedger(path := tmp_path / "state", self.REQUEST).close()
        with pytest.raises(ConfigError, match="another from"):
            AuditLedger(path, self.REQUEST | {"from": 2})
        # It is closed: Windows does not delete a file that is open.
        if sys.platform == "linux":
            assert str(path) not in [str(one.readlink()) for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]

    def test_a_file_that_is_no_state_is_refused_and_unchanged(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("not a database, and long enough to have a header" * 10)
        with pytest.raises(ConfigError, match="is not the state file"):
            AuditLedger(path, self.REQUEST)
        assert path.read_text().startswith("not a database")


@pytest.mark.servers
def test_recipients_are_those_that_openssl_encrypted_for(tmp_path: Path) -> None:
    """The judge is openssl, which makes certificates and envelopes."""
    certificates = []
    for name in ("one", "two"):
        key, certificate = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        subject = f"/O=Bank & Söhne/CN={name}"
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-utf8", "-days", "2", "-subj", subject]
        run_program([*request, "-keyout", str(key), "-out", str(certificate)])
        certificates.append(certificate)
    (tmp_path / "clear").write_bytes(b"content")
    wanted = {certificate_recipient(one.read_text()) for one in certificates}
    assert len(wanted) == 2
    for chosen in (certificates, certificates[:1]):
        command = ["openssl", "cms", "-encrypt", "-aes-256-cbc", "-outform", "PEM", "-in", str(tmp_path / "clear")]
        run_program([*command, "-out", str(tmp_path / "envelope"), *map(str, chosen)])
        found = envelope_recipients((tmp_path / "envelope").read_text())
        assert found == {certificate_recipient(one.read_text()) for one in chosen}
    serial = x509.load_pem_x509_certificate(certificates[0].read_bytes()).serial_number
    assert certificate_recipient(certificates[0].read_text()).endswith(serial.to_bytes(20, "big").lstrip(b"\0"))


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "no PEM",
        "-----BEGIN PKCS7-----\nMAAé\n-----END PKCS7-----",
        "-----BEGIN PKCS7-----\n!!\n-----END PKCS7-----",
        "-----BEGIN PKCS7-----\nMAA=\n-----END PKCS7-----",
    ],
)
def test_unreadable_envelopes_are_refused(pem: str) -> None:
    with pytest.raises(EncryptionError):
        envelope_recipients(pem)


def test_an_encrypted_file_is_not_compared_without_rcs(tmp_path: Path) -> None:
    services: Any = SimpleNamespace(rcs=None)
    unused: Any = None
    media = MediaFile.from_json({"mediaId": "call_muxed.mp4.bin", "certAlias": ["a"]})
    check = DeepCheck(services, unused, Pace(1000, None, threading.Event()))
    with pytest.raises(EncryptionError, match="base_uri"):
        check._fetch_result(unused, media, tmp_path / "stored")


class TestErrorsOfAComparison:
    """An error that concerns the following files, too, ends the audit; another one is a finding."""

    CALL = CallRecording.from_json({"id": "call", "region": "r", "mediaFiles": []})

    def compare(self, error: MuxerError, *, has_room: bool = True, could_fit: bool = True) -> list[Finding]:
        audio, screen = (MediaFile.from_json({"mediaId": name, "size": "100"}) for name in ("audio", "screen"))
        descriptor = {"storage": "webDAV", "path": "http://dav/muxed"}
        parameters = {"muxed_mediaIds": ["audio", "screen"]}
        entry = {"mediaId": "muxed", "parameters": parameters, "originalMediaDescriptor": descriptor}
        media = MediaFile.from_json(entry)
        target = MuxTarget("call", "r", "agent", audio, (screen,), covering_files=(media,))

        def fail(what: str, do: object) -> None:
            raise error

        disk = SimpleNamespace(has_room=lambda: has_room, could_fit=lambda sizes: could_fit and sum(sizes) == 200)
        workspace = SimpleNamespace(disk=disk, job_folder=lambda: nullcontext(Path("folder")))
        breaker = SimpleNamespace(open_circuits=list)
        services: Any = SimpleNamespace(workspace=workspace, circuit_breaker=breaker, activity=Activity(), repeat=fail)
        services.stores = SimpleNamespace(for_location=lambda location: SimpleNamespace(download_file=print))
        job: Any = None
        check = DeepCheck(services, job, Pace(1000, None, threading.Event()))
        audited = AuditedCall(self.CALL, TargetSelection((target,), ()), True, CallVerdict())
        return list(check.compare_call(audited).findings)

    @pytest.mark.parametrize(
        ("error", "has_room"),
        [
            (LocalResourceError("no space left", code=Code.DISK_FULL), True),
            (LocalResourceError("ffmpeg ended because there is too little memory or disk space"), False),
        ],
    )
    def test_a_full_disk_ends_the_audit(self, error: MuxerError, has_room: bool) -> None:
        with pytest.raises(LocalResourceError):
            self.compare(error, has_room=has_room)

    def test_a_program_that_cannot_be_started_ends_the_audit(self) -> None:
        error = LocalResourceError("ffmpeg cannot be started")
        error.__cause__ = FileNotFoundError()
        with pytest.raises(LocalResourceError, match="cannot be started"):
            self.compare(error)

    @pytest.mark.parametrize(
        ("error", "could_fit"),
        [
            (LocalResourceError("it needs about 900 TB", code=Code.DISK_FULL), False),
            (LocalResourceError("ffmpeg ended because there is too little memory or disk space"), True),
            (MediaIncomplete("screen: 90 of 100 bytes are there"), True),
        ],
    )
    def test_what_concerns_one_file_is_a_finding(self, error: MuxerError, could_fit: bool) -> None:
        [finding] = self.compare(error, could_fit=could_fit)
        assert (finding.kind, finding.file) == (FindingKind.UNCHECKED, "muxed") and str(error) in finding.detail

    def test_a_file_that_is_gone_meanwhile_or_that_rcs_does_not_find_is_unchecked(self) -> None:
        assert [one.kind for one in self.compare(MediaNotFound("gone"))] == [FindingKind.UNCHECKED]


def test_the_recording_of_a_muxed_name() -> None:
    for recording in ("01ABC", "3de6371d-0571-5542-9c7d-fb23d2cd83d2", "with_underline"):
        name = muxed_name(recording, ["a", "b"])
        again = name.replace("_muxed", "-2_muxed")
        blank = muxed_name(recording, ["a", "b"], [(0, 5)])
        for one in (name, f"{name}.bin", again, blank):
            assert recording_of_name(one) == recording
    assert recording_of_name(muxed_name("x" * 80, ["a"])) is None
    assert recording_of_name("agent1_screen.mp4") is None


def test_times_without_an_hour_have_their_place(tmp_path: Path) -> None:
    ledger = AuditLedger(tmp_path / "state", {})
    ledger.record_calls([("call", None, False, CallVerdict())])
    assert list(ledger.read_hours()) == [(0, 1, 0, 0)]


def test_the_start_of_the_day_is_utc() -> None:
    assert datetime.fromtimestamp(MARCH / 1000, UTC) == datetime(2026, 3, 1, tzinfo=UTC)
    assert timedelta(milliseconds=SLICE_MS) == timedelta(days=1)
