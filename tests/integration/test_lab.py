"""The whole lab: cases, storage, RCS, decryption, configuration, and the command that serves it."""

import configparser
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from webdav4.client import Client as Dav

from lab import serve
from lab.cases import ALL_CASES, Case
from lab.errors import LabError
from lab.lab import AddedCall, ExternalDav, Lab, LabPorts  # type: ignore[attr-defined]
from lab.media import instant_code, read_frames, read_pips, second_code
from lab.switches import Switches

ROOT = Path(__file__).parents[2]
START = datetime(2024, 1, 2, 10, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def calls(lab: Lab) -> dict[str, AddedCall]:
    return {call.plan.name: call for call in lab.add_cases(start=START)}


def request_media(
    lab: Lab, kind: str, recording_id: str, media_id: str, auth: tuple[str, str] | None = None
) -> requests.Response:
    credentials = auth or (lab.site.rcs_account.username, lab.site.rcs_account.password)
    url = f"{lab.rcs_url}/rcs/contact-centers/{lab.ccid}/{kind}/{recording_id}/play/{media_id}"
    return requests.get(url, auth=credentials, timeout=10)


# cases


@pytest.mark.long
def test_every_case_exists_with_files_at_their_locations(lab: Lab, calls: dict[str, AddedCall]) -> None:
    assert {call.case for call in calls.values()} == set(ALL_CASES)
    for call in calls.values():
        recording, screen = lab.store.get_call(call.id), lab.store.get_screen(call.id)
        assert recording is not None
        for media in recording["mediaFiles"] + (screen["mediaFiles"] if screen else []):
            path = lab.site.media.find_file(media)
            assert path is not None and path.stat().st_size == int(media["size"])
            is_encrypted = call.plan.encrypted or "muxed_mediaIds" in media["parameters"]
            assert ("pkcs7" in media) == is_encrypted == media["mediaId"].endswith(".bin")


def test_the_media_match_the_metadata(lab: Lab, calls: dict[str, AddedCall]) -> None:
    for name in ("before", "transfer"):
        call = calls[name]
        for screen in call.screens:
            frames = read_frames(lab.folder / "dav/screens" / screen.media_id)
            assert len(frames) == screen.part.seconds * 10
            assert frames[0].instant == instant_code(screen.start)
            assert {frame.agent for frame in frames} == {screen.part.agent.number}
        pips = read_pips(lab.folder / "dav/calls" / call.audio_id)
        assert len(pips) == call.plan.seconds
        assert pips[0].second == second_code(call.start) and pips[0].onset <= 0.01


def test_metadata_has_the_wire_format(lab: Lab, calls: dict[str, AddedCall]) -> None:
    recording = lab.store.get_call(calls["transfer"].id)
    assert recording is not None
    audio = recording["mediaFiles"][0]
    assert recording["startTime"] == audio["startTime"] == "2024-01-02T10:02:00.000+0000"
    assert audio["duration"] == "32000"
    assert audio["originalMediaDescriptor"]["path"] == f"{lab.dav_url}/calls/{audio['mediaId']}"
    joined = [event["contact"].get("userName") for event in recording["eventHistory"]]
    assert joined == [None, "agent1", "agent2"]
    assert "SRSScreenRecordingStateStarted" in recording["eventHistory"][1]["data"].values()
    screen = lab.store.get_screen(recording["id"])
    assert screen is not None
    media = screen["mediaFiles"][1]
    assert media["parameters"] == {"region": "r1", "contact": {"userName": "agent2"}}
    assert media["originalMediaDescriptor"]["data"] == {"storagePath": f"{lab.dav_url}/screens/"}


def test_ids_are_stable_and_differ_by_serial(lab: Lab, calls: dict[str, AddedCall]) -> None:
    assert calls["plain"].id == "0a752b6e-d7d2-516e-a70f-8b86d9a34d5a"
    (other,) = lab.add_case(Case.PLAIN, START, serial=7)
    assert other.id != calls["plain"].id and lab.store.get_screen(other.id)


def test_late_screen_is_added_once_on_demand(lab: Lab, calls: dict[str, AddedCall]) -> None:
    late = calls["late"]
    assert lab.store.get_screen(late.id) is None
    assert [lab.deliver_late(), lab.deliver_late()] == [1, 0]
    screen = lab.store.get_screen(late.id)
    assert screen is not None and screen["mediaFiles"][0]["mediaId"] == late.screens[0].media_id


def test_finished_calls_have_nothing_to_do(lab: Lab, calls: dict[str, AddedCall], tmp_path: Path) -> None:
    assert lab.store.get_screen(calls["no-screen"].id) is None
    call = calls["muxed"]
    screen, recording = lab.store.get_screen(call.id), lab.store.get_call(call.id)
    assert screen is not None and recording is not None
    assert recording["labels"] == [{"name": "screenRecording"}]
    muxed = screen["mediaFiles"][-1]
    assert muxed["parameters"]["muxed_mediaIds"] == [call.audio_id, call.screens[0].media_id]
    stored, clear = lab.site.media.find_file(muxed), tmp_path / "clear.mp4"
    assert stored is not None
    lab.decrypt_file(muxed["pkcs7"], stored, clear)
    assert len(read_pips(clear)) == 20 and len(read_frames(clear)) == 200


# encryption and RCS


@pytest.mark.parametrize("recipient", [0, 1])
def test_openssl_decrypts_the_encrypted_sources(
    lab: Lab, calls: dict[str, AddedCall], tmp_path: Path, recipient: int
) -> None:
    recording = lab.store.get_call(calls["encrypted"].id)
    assert recording is not None
    media = recording["mediaFiles"][0]
    stored = lab.site.media.find_file(media)
    assert stored is not None
    lab.decrypt_file(media["pkcs7"], stored, tmp_path / "clear.mp3", recipient)
    assert len(read_pips(tmp_path / "clear.mp3")) == 22
    assert "-----BEGIN PKCS7-----" in media["pkcs7"]
    with pytest.raises(LabError):
        read_pips(stored)
    (tmp_path / "cut").write_bytes(stored.read_bytes()[:-7])
    with pytest.raises(LabError, match="openssl"):
        lab.decrypt_file(media["pkcs7"], tmp_path / "cut", tmp_path / "x", recipient)


def test_rcs_plays_encrypted_and_clear_media(lab: Lab, calls: dict[str, AddedCall], tmp_path: Path) -> None:
    call = calls["encrypted"]
    screen = lab.store.get_screen(call.id)
    assert screen is not None
    media = screen["mediaFiles"][0]
    stored = lab.site.media.find_file(media)
    assert stored is not None
    lab.decrypt_file(media["pkcs7"], stored, tmp_path / "clear.mp4")
    response = request_media(lab, "user-screen-recordings", call.id, media["mediaId"])
    assert response.content == (tmp_path / "clear.mp4").read_bytes()
    assert response.headers["Content-Type"] == "video/mp4"
    (tmp_path / "clear.mp3").write_bytes(request_media(lab, "user-recordings", call.id, call.audio_id).content)
    assert len(read_pips(tmp_path / "clear.mp3")) == 22
    plain = calls["plain"]
    response = request_media(lab, "user-recordings", plain.id, plain.audio_id)
    assert response.content == (lab.folder / "dav/calls" / plain.audio_id).read_bytes()


def test_rcs_plays_what_openssl_encrypted(lab: Lab, tmp_path: Path) -> None:
    clear = tmp_path / "clear"
    for size in (0, 15, 16, 200_000):
        clear.write_bytes(b"\x01" * size)
        command = ["openssl", "cms", "-encrypt", "-binary", "-aes-256-cbc", "-outform", "DER", "-in", str(clear)]
        message = subprocess.run(
            [*command, str(lab.encryption_recipients[1].certificate_file)], capture_output=True, check=True
        )
        envelope, ciphertext = split_enveloped(message.stdout)
        (lab.folder / "dav/calls/o.mp3.bin").write_bytes(ciphertext)
        place = lab.site.media.call_descriptor("o.mp3.bin")
        media = {"mediaId": "o.mp3.bin", "type": "audio/mp3", "pkcs7": envelope, "originalMediaDescriptor": place}
        lab.store.add_call({"id": "openssl", "region": "other", "mediaFiles": [media]})
        assert request_media(lab, "user-recordings", "openssl", "o.mp3.bin").content == clear.read_bytes()


def split_enveloped(der: bytes) -> tuple[str, bytes]:
    """Split an EnvelopedData message into envelope and content."""
    from asn1crypto import cms, pem

    message = cms.ContentInfo.load(der)
    info = message["content"]["encrypted_content_info"]
    ciphertext = info["encrypted_content"].native
    del info["encrypted_content"]
    return pem.armor("PKCS7", message.dump(force=True)).decode(), ciphertext


def test_rcs_refuses_invalid_requests(lab: Lab, calls: dict[str, AddedCall]) -> None:
    call = calls["encrypted"]
    assert requests.get(f"{lab.rcs_url}/rcs/version", timeout=10).status_code == 200
    assert request_media(lab, "user-recordings", call.id, call.audio_id, ("rcs", "wrong")).status_code == 401
    assert request_media(lab, "user-recordings", call.id, "other").status_code == 404
    assert request_media(lab, "user-recordings", "other", call.audio_id).status_code == 404
    lab.rcs_permission = False
    try:
        assert request_media(lab, "user-recordings", call.id, call.audio_id).status_code == 403
    finally:
        lab.rcs_permission = True
    assert ("rcs", 403) in {(record.service, record.status) for record in lab.store.served_requests}


def test_rcs_reports_media_that_cannot_be_decrypted(lab: Lab, calls: dict[str, AddedCall]) -> None:
    recording = lab.store.get_call(calls["encrypted"].id)
    assert recording is not None
    media = recording["mediaFiles"][0]
    for number, broken in enumerate(("no envelope", media["pkcs7"][:200])):
        recording["mediaFiles"][0] = {**media, "pkcs7": broken}
        lab.store.add_call({**recording, "id": f"broken-{number}", "region": "other"})
        assert request_media(lab, "user-recordings", f"broken-{number}", media["mediaId"]).status_code == 500


# storage


def test_clear_media_is_available_through_rws(lab: Lab, calls: dict[str, AddedCall]) -> None:
    account = lab.site.rws_account
    for name, status in (("plain", 200), ("encrypted", 404)):
        for recording in (lab.store.get_call(calls[name].id), lab.store.get_screen(calls[name].id)):
            assert recording is not None
            media = recording["mediaFiles"][0]
            response = requests.get(media["mediaUri"], auth=(account.username, account.password), timeout=10)
            stored = lab.site.media.find_file(media)
            assert stored is not None and response.status_code == status
            assert (response.content == stored.read_bytes()) == (status == 200)


def test_files_are_found_without_a_descriptor_and_never_outside(lab: Lab, calls: dict[str, AddedCall]) -> None:
    media_id = calls["plain"].audio_id
    assert lab.site.media.find_file({"mediaId": media_id}) == lab.folder / "dav/calls" / media_id
    (lab.folder / "secret").write_text("x")
    for name in ("../../secret", "none"):
        descriptor = lab.site.media.call_descriptor(name)
        assert lab.site.media.find_file({"mediaId": name, "originalMediaDescriptor": descriptor}) is None


def test_storage_is_webdav_with_authentication(lab: Lab, tmp_path: Path) -> None:
    account = lab.site.dav_account
    dav = Dav(lab.dav_url, auth=(account.username, account.password))
    (tmp_path / "new").write_bytes(b"0123456789" * 50_000)
    dav.upload_file(tmp_path / "new", "screens/tmp.part")
    dav.move("screens/tmp.part", "screens/new.mp4")
    assert (lab.folder / "dav/screens/new.mp4").stat().st_size == dav.content_length("screens/new.mp4") == 500_000
    dav.remove("screens/new.mp4")
    assert not (lab.folder / "dav/screens/new.mp4").exists()
    assert requests.get(f"{lab.dav_url}/screens/", timeout=10).status_code == 401
    assert requests.get(f"{lab.dav_url}/screens/", auth=(account.username, "wrong"), timeout=10).status_code == 401
    assert ("dav", "MOVE", 201) in {(r.service, r.method, r.status) for r in lab.store.served_requests}


def test_the_storage_can_be_made_to_fail(lab: Lab) -> None:
    account = lab.site.dav_account
    lab.store.fail_next("dav", "PUT", "/screens/x", 507, headers={"Retry-After": "2"}, body=b"full")
    with requests.Session() as session:
        session.auth = (account.username, account.password)
        responses = [session.put(f"{lab.dav_url}/screens/x", data=b"x" * 100_000, timeout=10) for _ in range(2)]
    assert [response.status_code for response in responses] == [507, 201]
    assert responses[0].content == b"full" and responses[0].headers["Retry-After"] == "2"


def test_another_server_can_be_the_storage(tmp_path: Path) -> None:
    root = tmp_path / "elsewhere"
    with Lab(tmp_path / "lab", dav=ExternalDav("http://storage.invalid/media/", root, "u", "p")) as lab:
        (call,) = lab.add_case(Case.PLAIN)
        recording = lab.store.get_call(call.id)
        assert recording is not None
        media = recording["mediaFiles"][0]
        assert media["originalMediaDescriptor"]["path"] == f"http://storage.invalid/media/calls/{call.audio_id}"
        assert lab.site.media.find_file(media) == root / "calls" / call.audio_id
        assert request_media(lab, "user-recordings", call.id, call.audio_id).status_code == 200
        assert "username = u\npassword = p\n" in lab.config_text()


# life


def test_the_configuration_is_complete(lab: Lab) -> None:
    text = lab.config_text(**{"processing.min_poll_interval": "1", "s3.region": "x", "htcc.password": ""})
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(text)
    assert config.sections()[:6] == ["htcc", "rcs", "webdav", "processing", "advanced", "logfile"]
    assert config["htcc"]["base_uri"] == lab.rws_url and config["htcc"]["contact_center_id"] == lab.ccid
    assert (config["processing"]["min_poll_interval"], config["s3"]["region"], config["htcc"]["password"]) == (
        "1",
        "x",
        "",
    )
    assert Path(config["processing"]["temp_dir"]).is_dir() and Path(config["logfile"]["logfile_path"]).is_dir()


def test_a_stopped_lab_serves_no_requests_and_frees_its_ports(tmp_path: Path) -> None:
    with requests.Session() as session:
        with Lab(tmp_path) as lab:
            url = f"{lab.rws_url}/api/v2/diagnostics/version"
            assert session.get(url, timeout=10).status_code == 200
            ports = LabPorts(*(int(address.rpartition(":")[2]) for address in (lab.rws_url, lab.rcs_url, lab.dav_url)))
        with pytest.raises(requests.ConnectionError):
            session.get(url, timeout=10)
        with Lab(tmp_path, ports=ports) as again:
            assert again.rws_url == lab.rws_url
            assert again.encryption_recipients[0].pem == lab.encryption_recipients[0].pem
            assert session.get(url, timeout=10).status_code == 200
            with pytest.raises(OSError), Lab(tmp_path, ports=LabPorts(rws=ports.rws)):
                pass


def test_switches_change_while_it_runs(lab: Lab) -> None:
    lab.switches = Switches(version="9.0.0.1")
    try:
        assert requests.get(f"{lab.rws_url}/api/v2/diagnostics/version", timeout=10).json()["version"] == "9.0.0.1"
    finally:
        lab.switches = Switches()


def test_many_concurrent_clients(lab: Lab) -> None:
    url, statuses = f"{lab.rws_url}/api/v2/diagnostics/version", []

    def request_media_often() -> None:
        with requests.Session() as session:
            statuses.extend(session.get(url, timeout=10).status_code for _ in range(20))

    threads = [threading.Thread(target=request_media_often) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 240


# the command


@pytest.mark.long
def test_serve_prints_a_working_configuration_and_ends_on_a_signal(tmp_path: Path) -> None:
    code = "import sys; from lab.serve import main; sys.exit(main(sys.argv[1:]))"
    config = tmp_path / "muxer.cfg"
    options = ["--config", str(config), "--late-after", "0", "--no-csrf", "--link-form", "next", "--version", "8.5.1.1"]
    command = [sys.executable, "-c", code, *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        try:
            wait_for(config)
            settings = configparser.ConfigParser(interpolation=None)
            settings.read_string(config.read_text())
            version = requests.get(settings["htcc"]["base_uri"] + "/api/v2/diagnostics/version", timeout=10)
            assert version.json()["version"] == "8.5.1.1" and "X-CSRF-HEADER" not in version.headers
            program.send_signal(signal.SIGTERM)
            out, errors = program.communicate(timeout=15)
        finally:
            program.kill()
    assert (program.returncode, errors) == (0, "")
    assert config.read_text() in out
    assert not Path(settings["processing"]["temp_dir"]).exists()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_serve_reports_the_missing_package(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cheroot.wsgi", None)
    assert serve.main([]) == 1
    error = capsys.readouterr().err
    assert "cheroot" in error and "pip install -r thirdparty/requirements-lab.txt" in error
    monkeypatch.setitem(sys.modules, "lab.keys", None)
    for module in ("lab.lab", "lab.build", "lab.site"):
        monkeypatch.delitem(sys.modules, module)
    assert serve.main([]) == 1


def test_serve_refuses_a_port_in_use(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    port = lab.rcs_url.rpartition(":")[2]
    assert serve.main(["--port-rws", port]) == 1
    assert "in use" in capsys.readouterr().err


def test_the_help_of_a_switch_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        serve.main(["--help"])
    text = re.sub(r"\s", "", capsys.readouterr().out)  # It is wrapped anywhere.
    assert text.count("[gir-api") == len(re.findall(r"\[gir-api[^][]*]", text)) > 10
