"""``check`` against the lab and real TLS servers: each mistake of a new administrator is explained by its output."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.checks import connection, storages
from muxer.checks.suite import foreign_read_rights
from muxer.errors import Stopped
from muxer.status.activity import Activity
from muxer.status.state_file import STATE_FILE, StateFile
from muxer.storage.base import MediaLocation
from muxer.storage.webdav import WebdavStorage
from muxer.system.file_lock import acquire_lock
from muxer.system.masking import Mask
from tests.support.apache import run_apache
from tests.support.bucket import MotoBucket
from tests.support.checklist import Checklist, run_check, write_check_config
from tests.support.instance_state import new_instance_state
from tests.support.ports import free_port
from tests.support.tiers import spread_variants
from tests.support.tls import HOST, MediaServer, TlsFront, pem_bundle, self_signed

Make = Callable[..., Lab]
WRONG_PASSWORD = "not-the-password"


@dataclass
class CheckLab:
    """A lab with a plain and an encrypted call, and a folder for configurations."""

    lab: Lab
    folder: Path

    def run_checks(self, *arguments: str, **overrides: str) -> Checklist:
        return run_check(write_check_config(self.lab, self.folder, **overrides), *arguments)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[Lab]) -> Iterator[Lab]:
    with kept_lab(tmp_path_factory.mktemp("lab")) as lab:
        lab.add_case(Case.PLAIN)
        lab.add_case(Case.ENCRYPTED)
        yield lab


@pytest.fixture
def site(shared: Lab, tmp_path: Path) -> Iterator[CheckLab]:
    kept = shared.switches, shared.site.recipients
    yield CheckLab(shared, tmp_path)
    shared.switches, shared.site.recipients = kept
    shared.rcs_permission = True


# ---- nothing is wrong --------------------------------------------------------------------------------


def test_no_problems(site: CheckLab) -> None:
    found = site.run_checks()
    assert (found.bad_lines, found.exit_code) == ([], 0)
    assert found.all_of("skipped") == []
    assert "libx264" in found.line_of("ffmpeg").found
    assert "2 call recordings" in found.line_of("RWS window").found
    assert found.line_of("polls").found.startswith("every 3 s over the last 1 h of the window, every 51 min over the whole")
    assert "in bulk: 2 of the first 2" in found.line_of("RWS screen recordings").found
    assert "RCS plays" in found.line_of("RCS decrypt permission").found
    assert "writing not checked" in found.line_of(f"WebDAV folder {site.lab.dav_url}/screens/").found
    assert "days left" in found.line_of("encryption certificate rcs_lab:1").found
    order = [line.check for line in found.lines]
    areas = ("configuration", "ffmpeg", "temp_dir", "RWS login", "RWS window", "RCS login", "WebDAV", "encryption")
    places = [next(i for i, one in enumerate(order) if one.startswith(area)) for area in areas]
    assert places == sorted(places)


def test_a_page_that_is_too_large_for_rws_is_a_warning(site: CheckLab) -> None:
    site.lab.store.fail_next("rws", "GET", "limit=1000", 400, body=b'{"statusCode": 2}')
    line = site.run_checks(advanced__pagination="1000").line_of("RWS pages")
    assert line.status == "warning" and "asks for 500 until" in line.found


def test_passwords_in_readable_file_are_a_warning(site: CheckLab, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_check_config(site.lab, site.folder)
    found = run_check(config).line_of("passwords in the file")
    assert found.status == "ok" and "[htcc] password" in found.found and "ops" not in found.found
    account = os.getuid() or 12345  # the group of a root-owned file has a separate test
    os.chown(config, account, -1)
    monkeypatch.setattr(os, "getuid", lambda: account)
    for mode, closed in ((0o640, "600"), (0o604, "600"), (0o606, "600"), (0o705, "700")):
        config.chmod(mode)
        found = run_check(config)  # type: ignore[assignment]
        [line] = found.bad_lines  # type: ignore[attr-defined]
        assert (line.check, line.status, found.exit_code) == ("passwords in the file", "warning", 0)  # type: ignore[attr-defined]
        assert f"chmod {closed} {config}" in line.advice and "keystore" in line.advice


def test_group_of_root_owned_file_may_read_it() -> None:
    assert [foreign_read_rights(owner, account) for owner, account in ((0, 0), (0, 999), (999, 999))] == [
        0o004,
        0o004,
        0o044,
    ]


def test_a_file_without_passwords_may_be_read_by_all(site: CheckLab, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_check_config(site.lab, site.folder)
    for name in ("HTCC", "RCS", "WEBDAV"):
        monkeypatch.setenv(f"{name}_PASSWORD", "wrong")
    lines = [line for line in config.read_text().splitlines() if not line.startswith(("password", "secret_access_key"))]
    config.write_text("\n".join(lines))
    config.chmod(0o644)
    assert not [line for line in run_check(config).lines if line.check == "passwords in the file"]


def file_digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("arguments", [(), ("--write",)])
def test_check_changes_nothing_and_write_check_leaves_nothing(site: CheckLab, arguments: tuple[str, ...]) -> None:
    write_check_config(site.lab, site.folder)
    before, seen = file_digests(site.lab.folder), len(site.lab.store.served_requests)
    found = site.run_checks(*arguments)
    assert found.exit_code == 0
    assert file_digests(site.lab.folder) == before
    sent = {(request.service, request.method) for request in site.lab.store.served_requests[seen:]}
    reads = {("rws", "GET"), ("rcs", "GET"), ("dav", "PROPFIND")}
    assert sent == (reads | {("dav", "PUT"), ("dav", "MOVE"), ("dav", "DELETE")} if arguments else reads)
    verdict = found.line_of(f"WebDAV folder {site.lab.dav_url}/screens/").found
    assert ("uploaded and deleted" if arguments else "writing not checked") in verdict


# ---- mistakes ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OptionMistake:
    """Wrong options, and the expected output of ``check``: the line, its finding, its advice, and the exit code."""

    options: dict[str, str]
    line: str
    found: str
    advice: str
    code: int = 1
    status: str = "failed"


MISTAKES = {
    "password of RWS": OptionMistake({"htcc__password": WRONG_PASSWORD}, "RWS login", "401", "[htcc] username and password"),
    "contact center": OptionMistake(
        {"htcc__contact_center_id": "another"}, "RWS contact center", "another", "contact_center_id"
    ),
    "host of RWS": OptionMistake({"htcc__base_uri": "http://rws.invalid:8081"}, "RWS address", "rws.invalid", "DNS"),
    "password of RCS": OptionMistake({"rcs__password": WRONG_PASSWORD}, "RCS login", "401", "[rcs] username and password"),
    "no RCS": OptionMistake({"rcs__base_uri": ""}, "RCS", "is encrypted", "set base_uri, username and password of [rcs]"),
    "window": OptionMistake(
        {"processing__window_past": "2"}, "RWS window", "0 call recordings", "correct [processing] window_past", 0, "warning"
    ),
    "extra query": OptionMistake(
        {"advanced__call_recording_extra_query_string": "userData=nobody"},
        *("RWS window", "0 call recordings", "there are recordings in that time, but none with", 0, "warning"),
    ),
    "migration query": OptionMistake(
        {"advanced__call_recording_query_string": "startTime=1&endTime=2"},
        *("RWS window", "0 call recordings", "correct [advanced] call_recording_query_string", 0, "warning"),
    ),
    "disk too small for the option": OptionMistake(
        {"processing__min_free_megabytes": "900000000"}, "free space", "must be at most", "correct it in muxer.cfg"
    ),
    "no temp_dir in this place": OptionMistake(
        {"rcs__trusted_ca": "/nowhere.pem"}, "configuration", "[rcs] trusted_ca", "correct it: ", 2
    ),
    "ffmpeg": OptionMistake({"processing__ffmpeg": "/nowhere/ffmpeg"}, "configuration", "install the program", "line ", 2),
    "hosts": OptionMistake(
        {"webdav__hosts": "dav.example"}, "WebDAV 127.0.0.1", "is not in [webdav] hosts", "follow the text"
    ),
}


@pytest.mark.parametrize("name", spread_variants(MISTAKES, 3))
def test_a_wrong_option_is_explained(site: CheckLab, name: str) -> None:
    mistake = MISTAKES[name]
    found = site.run_checks(**mistake.options)
    lines = [one for one in found.bad_lines if one.check.startswith(mistake.line)]
    assert len(lines) == 1, found.bad_lines
    assert (lines[0].status, found.exit_code) == (mistake.status, mistake.code)
    assert mistake.found in lines[0].found and mistake.advice in lines[0].advice
    assert WRONG_PASSWORD not in found.text


def test_a_secret_that_a_server_echoes_is_not_shown(site: CheckLab) -> None:
    echo = b'{"statusCode": 20, "statusMessage": "who is ops with a-long-password?"}'
    site.lab.store.fail_next("rws", "GET", "/recordings", status=401, body=echo)
    found = site.run_checks(htcc__password="a-long-password")
    assert "who is ops with ***?" in found.line_of("RWS login").found and "a-long-password" not in found.text


def test_checks_that_depend_on_failed_check_are_skipped(site: CheckLab) -> None:
    found = site.run_checks(htcc__password=WRONG_PASSWORD)
    assert found.line_of("RWS window").found == "not checked: needs RWS login"
    assert found.line_of("storages").status == "skipped"
    assert found.line_of("RCS login").status == "ok", "RCS does not need RWS"
    assert "unknown" in found.line_of("RCS decrypt permission").found
    found = site.run_checks(htcc__contact_center_id="nobody")
    assert found.line_of("RWS window").found == "not checked: needs RWS contact center"


def test_an_unusable_configuration_still_lists_what_can_be_checked(site: CheckLab) -> None:
    found = site.run_checks(
        processing__ffmpeg="/nowhere/ffmpeg", processing__temp_dir=str(site.folder), logfile__level="loud"
    )
    assert found.exit_code == 2
    assert {one.found.partition(" =")[0] for one in found.bad_lines if one.check == "configuration"} == {
        "[processing] ffmpeg",
        "[logfile] level",
    }
    assert found.line_of("ffmpeg").found == "not checked: needs [processing] ffmpeg"
    assert found.line_of("ffprobe").status == found.line_of("RWS window").status == "ok"


def test_missing_configuration_file(tmp_path: Path) -> None:
    found = run_check(tmp_path / "none.cfg")
    assert found.exit_code == 2
    assert "does not exist" in found.line_of("configuration").found
    assert {line.status for line in found.lines} == {"failed", "skipped"}


def test_unavailable_recording_server(site: CheckLab) -> None:
    found = site.run_checks(htcc__base_uri=f"http://{HOST}:{free_port()}")
    line = found.line_of("RWS address")
    assert "start RWS, or correct [htcc] base_uri" in line.advice
    assert found.exit_code == 1


def test_port_of_another_server(site: CheckLab) -> None:
    with MediaServer() as other:
        found = site.run_checks(htcc__base_uri=other.url)
    assert "is the address of RWS, not of another web server" in found.line_of("RWS version").advice
    assert "[htcc] base_uri" in found.line_of("RWS login").advice
    assert "[htcc] base_uri" in site.run_checks(htcc__base_uri=site.lab.dav_url).line_of("RWS version").advice


def test_ffmpeg_without_its_encoder(site: CheckLab) -> None:
    program = site.folder / "ffmpeg"
    program.write_text("#!/bin/sh\necho ffmpeg version 6.0\n")
    program.chmod(0o755)
    found = site.run_checks(processing__ffmpeg=str(program))
    assert "no libx264 encoder" in found.line_of("ffmpeg").found and found.exit_code == 1


def test_rcs_without_the_permission(site: CheckLab) -> None:
    site.lab.rcs_permission = False
    found = site.run_checks()
    assert "media decrypt permission" in found.line_of("RCS decrypt permission").advice
    assert found.line_of("RCS login").status == "ok" and found.exit_code == 1


def test_an_old_rws_without_the_bulk_query(site: CheckLab) -> None:
    site.lab.switches = replace(site.lab.switches, bulk=False, version="8.5.201.10")
    found = site.run_checks()
    assert "batch_read_screen_recording_metadata = 0" in found.line_of("RWS screen recordings").advice
    assert "8.5.205.32 or later" in found.line_of("RWS version").advice
    assert found.exit_code == 0


def test_clocks_that_differ(site: CheckLab, monkeypatch: pytest.MonkeyPatch) -> None:
    late = lambda *_: formatdate(0, usegmt=True)  # noqa: E731
    monkeypatch.setattr(BaseHTTPRequestHandler, "date_time_string", late)
    found = site.run_checks()
    assert "ahead of that of RWS" in found.line_of("RWS clock").found and "NTP" in found.line_of("RWS clock").advice
    assert found.exit_code == 0


def test_disk_with_too_little_space(site: CheckLab) -> None:
    write_check_config(site.lab, site.folder)
    usage = shutil.disk_usage(site.lab.folder)
    required = (usage.free + (usage.total - usage.free) // 2) >> 20
    found = site.run_checks(processing__min_free_megabytes=str(required))
    assert "free space on the disk" in found.line_of("free space").advice and found.exit_code == 1


def test_folders_accessible_to_others(site: CheckLab) -> None:
    open_folder = site.folder / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    found = site.run_checks(processing__temp_dir=str(open_folder), logfile__logfile_path=str(open_folder))
    assert f"chmod 700 {open_folder}" in found.line_of("temp_dir").advice
    assert f"chmod 755 {open_folder}" in found.line_of("logfile_path").advice
    assert found.line_of("temp_dir").status == "failed" and found.exit_code == 1
    open_folder.chmod(0o1777)
    found = site.run_checks(processing__temp_dir=str(open_folder))
    assert found.line_of("temp_dir").status == "warning" and found.exit_code == 0


def test_running_muxer_is_reported_and_not_disturbed(site: CheckLab) -> None:
    write_check_config(site.lab, site.folder)
    temp = site.lab.folder / "temp"
    with acquire_lock(temp / "muxer.lock", temp, "o"):
        assert "held by a running muxer (process " in site.run_checks().line_of("lock").found
        state = StateFile(temp / STATE_FILE, "primary-0", Mask())
        state.write_state(Activity().take_snapshot(), 0, (), has_room=True)
        found = site.run_checks().line_of("lock")
        state.remove_file()
        assert found.status == "warning" and " as primary-0); single would not start" in found.found
    assert "no muxer runs" in site.run_checks().line_of("lock").found


def test_the_log_file_of_another_instance(site: CheckLab) -> None:
    write_check_config(site.lab, site.folder)
    temp, log = site.lab.folder / "temp", site.lab.folder / "log" / "recording-muxer-single.log"
    with acquire_lock(log.with_name(f"{log.name}.lock"), log, "o"):
        found = site.run_checks()
        assert "the muxer would not start" in found.line_of("log file").found and found.exit_code == 1
        with acquire_lock(temp / "muxer.lock", temp, "o"):
            assert site.run_checks().bad_lines == [], "one muxer holds both"


def test_the_monitoring_port(site: CheckLab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = {"monitoring__http_port": str(taken.getsockname()[1])}
        found = site.run_checks(**options)
        assert "would not start" in found.line_of("monitoring port").found and found.exit_code == 1
        assert "set another [monitoring] http_port" in found.line_of("monitoring port").advice
        temp = site.lab.folder / "temp"
        with acquire_lock(temp / "muxer.lock", temp, "o"):
            assert site.run_checks(**options).line_of("monitoring port").status == "warning", "no state file yet"
            for used, status in ((int(options["monitoring__http_port"]), "ok"), (1, "failed"), (0, "failed")):
                (temp / STATE_FILE).write_text(json.dumps(new_instance_state(temp) | {"http_port": used}))
                assert site.run_checks(**options).line_of("monitoring port").status == status, used
        (temp / STATE_FILE).unlink()
    assert "free" in site.run_checks(**options).line_of("monitoring port").found


def test_the_certificate_of_the_monitoring_port(site: CheckLab) -> None:
    server, path = self_signed("muxer", "127.0.0.1", end=10), site.folder / "server.pem"
    path.write_bytes(pem_bundle(server) + server.key_pem)
    options = {"http_port": str(free_port()), "username": "p", "password": "geheim12", "certificate": path, "key": path}
    found = site.run_checks(**{f"monitoring__{name}": str(value) for name, value in options.items()})
    line = found.line_of("[monitoring] certificate")
    assert line.status == "warning" and "days left" in line.found


@pytest.mark.parametrize(
    ("muxer_type", "muxer_id"), spread_variants([("primary", "1"), ("primary", "0"), ("backup", "0")], 2)
)
def test_shard_is_reported(site: CheckLab, muxer_type: str, muxer_id: str) -> None:
    sharding = {"muxer_id": muxer_id, "total_muxers": "2", "muxer_type": muxer_type}
    found = site.run_checks(**{f"processing__{name}": value for name, value in sharding.items()})
    works_as = (int(muxer_id) + (muxer_type == "backup")) % 2
    assert f"of 2 belong to shard {works_as} of 2" in found.line_of("shard").found


def test_expired_or_unreadable_recipient_certificates(site: CheckLab) -> None:
    first, second = site.lab.site.recipients
    old = pem_bundle(self_signed("old", end=-2)).decode()
    site.lab.site.recipients = (replace(first, pem=old), replace(second, pem="nonsense"))
    found = site.run_checks()
    assert "expired" in found.line_of("encryption certificate rcs_lab:1").found
    assert "as PEM" in found.line_of("encryption certificate rcs_lab:2").advice
    assert found.exit_code == 1


# ---- TLS ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root() -> object:
    return self_signed("The Root", authority=True)


@dataclass(frozen=True)
class ServerChain:
    """A server's certificate, and what ``check`` reports about it."""

    host: str
    days: int
    line: str
    status: str
    advice: str


CHAINS = {
    "good": ServerChain(HOST, 400, "certificate of RWS", "ok", ""),
    "soon": ServerChain(HOST, 10, "certificate of RWS", "warning", "renew it in time"),
    "expired": ServerChain(HOST, -1, "RWS TLS", "failed", "renew the certificate on the server"),
    "another name": ServerChain(
        "rws.example.com", 400, "RWS TLS", "failed", "the certificate is for rws.example.com: use that"
    ),
}


@pytest.mark.parametrize("name", spread_variants(CHAINS, 2))
def test_certificates_of_rws(site: CheckLab, root, name: str) -> None:  # type: ignore[no-untyped-def]
    chain, bundle = CHAINS[name], site.folder / "ca.pem"
    bundle.write_bytes(pem_bundle(root))
    server = root.issue_certificate("server", chain.host, begin=-3, end=chain.days)
    with TlsFront(site.lab.rws_url, server) as front:
        found = site.run_checks(htcc__base_uri=front.url, htcc__trusted_ca=str(bundle))
    line = found.line_of(chain.line)
    assert line.status == chain.status and chain.advice in line.advice
    assert found.exit_code == (1 if chain.status == "failed" else 0)
    assert found.line_of("[htcc] trusted_ca").status == "warning", "the root lasts a day"


def test_certificate_of_another_authority(site: CheckLab, root) -> None:  # type: ignore[no-untyped-def]
    bundle = site.folder / "ca.pem"
    bundle.write_bytes(pem_bundle(self_signed("Another Root", authority=True, end=400)))
    with TlsFront(site.lab.rws_url, root.issue_certificate("server", HOST)) as front:
        found = site.run_checks(htcc__base_uri=front.url, htcc__trusted_ca=str(bundle))
    line = found.line_of("RWS TLS")
    assert "unable to get local issuer" in line.found
    assert "issued by The Root" in line.advice and "[htcc] trusted_ca" in line.advice
    assert found.line_of("RWS login").status == "skipped" and found.exit_code == 1


def test_expired_unchecked_certificate_is_a_warning(site: CheckLab, root) -> None:  # type: ignore[no-untyped-def]
    with TlsFront(site.lab.rws_url, root.issue_certificate("server", HOST, begin=-3, end=-1)) as front:
        found = site.run_checks(htcc__base_uri=front.url, htcc__trusted_ca="false")
    assert "not checked" in found.line_of("RWS TLS").found
    assert found.line_of("certificate of RWS").status == "warning" and found.exit_code == 0


def test_http_to_https_port_and_https_to_http_port(site: CheckLab, root) -> None:  # type: ignore[no-untyped-def]
    with TlsFront(site.lab.rws_url, root.issue_certificate("server", HOST)) as front:
        found = site.run_checks(htcc__base_uri=front.url.replace("https:", "http:"))
    assert "the port speaks TLS: write https://" in found.line_of("RWS version").advice
    found = site.run_checks(htcc__base_uri=site.lab.rws_url.replace("http:", "https:"))
    assert "write http:// or the TLS port in [htcc] base_uri" in found.line_of("RWS TLS").advice


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x46", "enable TLS 1.2 or later there"),  # the alert "protocol version"
        (b"", "the other side closed the connection"),
        (None, "a firewall may drop packets"),
    ],
)
def test_a_failed_handshake_does_not_lead_to_an_unencrypted_connection(
    site: CheckLab, monkeypatch: pytest.MonkeyPatch, ending: bytes | None, says: str
) -> None:
    """A server that sends an alert, one that closes the connection, and one that is silent."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    with socket.create_server((HOST, 0)) as server:

        def respond() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer = server.accept()[0]
                    peers.append(peer)
                    if ending is not None and peer.recv(5000):
                        peer.sendall(ending)
                        peer.close()

        peers: list[socket.socket] = []
        threading.Thread(target=respond, daemon=True).start()
        found = site.run_checks(htcc__base_uri=f"https://{HOST}:{server.getsockname()[1]}")
        for peer in peers:
            peer.close()
    line = found.line_of("RWS TLS")
    assert says in line.advice and "http://" not in line.advice and line.status == "failed"


# ---- storages ----------------------------------------------------------------------------------------


def test_webdav_account(site: CheckLab) -> None:
    found = site.run_checks(webdav__password=WRONG_PASSWORD)
    lines = [line for line in found.lines if line.check.startswith("WebDAV folder")]
    assert {line.status for line in lines} == {"failed"} and found.exit_code == 1
    assert all("WEBDAV_PASSWORD" in line.advice for line in lines)
    assert WRONG_PASSWORD not in found.text


def test_webdav_over_tls_with_its_folders(make_lab: Make, root, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    lab = make_lab()
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(pem_bundle(root))
    with TlsFront(lab.dav_url, root.issue_certificate("dav", HOST, end=400)) as front:
        lab.site.media = replace(lab.site.media, url=front.url)
        (call,) = lab.add_case(Case.PLAIN)
        site = CheckLab(lab, tmp_path)
        good = site.run_checks(webdav__trusted_ca=str(bundle))
        (lab.folder / "dav" / "screens" / call.screens[0].media_id).unlink()
        shutil.rmtree(lab.folder / "dav" / "calls")
        bad = site.run_checks(webdav__trusted_ca=str(bundle))
    assert good.line_of(f"certificate of WebDAV {HOST}").status == "ok"
    assert good.line_of(f"WebDAV {HOST}:{front.port} TLS").found == "issued by The Root"
    assert good.line_of(f"WebDAV folder {front.url}/screens/").status == "ok"
    assert "does not exist" in bad.line_of(f"WebDAV folder {front.url}/screens/").found
    assert "create it on the server" in bad.line_of(f"WebDAV folder {front.url}/calls/").advice


@pytest.mark.posix
@pytest.mark.parametrize("interrupts", [False, True], ids=["time limit", "Ctrl-C"])
@pytest.mark.parametrize("step", spread_variants(["upload_file", "_upload_checked"], 2))
def test_the_test_file_of_an_upload_that_does_not_end_is_deleted(
    site: CheckLab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], interrupts: bool, step: str
) -> None:
    """The server has stored the file, whole or under its temporary name, but the upload hangs and ignores the stop."""
    config, before = write_check_config(site.lab, site.folder), file_digests(site.lab.folder)
    upload, end = getattr(WebdavStorage, step), threading.Event()
    uploaded: list[MediaLocation] = []

    def upload_and_hang(store: WebdavStorage, path: Path, location: MediaLocation, *more: object) -> None:
        upload(store, path, location, *more)
        uploaded.append(location)
        if interrupts:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        end.wait(60)
        raise Stopped("stopped")

    monkeypatch.setattr(WebdavStorage, step, upload_and_hang)
    monkeypatch.setattr(storages, "UPLOAD_TIMEOUT_SECONDS", 60.0 if interrupts else 2.0)
    monkeypatch.setattr(storages, "END_TIMEOUT_SECONDS", 0.1)
    if interrupts:
        with pytest.raises(json.JSONDecodeError):  # no checklist
            run_check(config, "--write")
    else:
        assert "not finished within 2 s" in run_check(config, "--write").text
    assert uploaded[0].name.startswith("recording-muxer-check-" if step == "upload_file" else "part-")
    assert file_digests(site.lab.folder) == before
    assert "recording-muxer-check-" in capsys.readouterr().err, "it has not ended, so it may store the file again"
    end.set()


def test_apache(kept_lab: type[Lab], tmp_path: Path) -> None:
    with run_apache() as server, kept_lab(tmp_path / "lab", dav=server) as lab:
        lab.add_case(Case.PLAIN)
        found = CheckLab(lab, tmp_path).run_checks("--write")
        left = [path.name for path in (server.root / "screens").iterdir()]
    assert "uploaded and deleted" in found.line_of(f"WebDAV folder {server.url}/screens/").found
    assert found.exit_code == 0 and not [one for one in left if "check" in one]


def test_refused_upload(site: CheckLab) -> None:
    site.lab.store.fail_next("dav", "PUT", "/screens/", status=403, times=1)
    found = site.run_checks("--write")
    line = found.line_of(f"WebDAV folder {site.lab.dav_url}/screens/")
    assert "an upload failed" in line.found and "read and write access" in line.advice
    assert found.exit_code == 1


@pytest.fixture
def bucket(models_read_once: None, no_keys_around: None) -> Iterator[MotoBucket]:
    with MotoBucket(checks_signatures=True) as bucket:
        yield bucket


def test_buckets(make_lab: Make, bucket: MotoBucket, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    bucket.take_screen(lab, call)
    site, before = CheckLab(lab, tmp_path), bucket.list_keys()
    account = {"s3__endpoint_url": bucket.url, "s3__access_key_id": bucket.key_id}
    good = site.run_checks("--write", **account, s3__secret_access_key=bucket.secret)
    assert "uploaded and deleted" in good.line_of("S3 bucket recordings/screens/").found
    assert good.line_of("S3 address").status == "ok" and bucket.list_keys() == before
    bad = site.run_checks(**account, s3__secret_access_key="x" * 40)
    assert "S3_SECRET_ACCESS_KEY" in bad.line_of("S3 bucket").advice and bad.exit_code == 1


def test_listed_servers_without_recordings(site: CheckLab) -> None:
    with ExitStack() as stack:
        other = stack.enter_context(MediaServer())
        port = other.url.rpartition(":")[2]
        found = site.run_checks(webdav__hosts=f"{HOST}, localhost:{port}, dav.invalid")
    assert "not checked" in found.line_of(f"WebDAV localhost:{port}").found
    assert "remove it from [webdav] hosts" in found.line_of("WebDAV dav.invalid").advice
    assert other.requests == []
