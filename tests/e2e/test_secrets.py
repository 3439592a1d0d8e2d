"""Hostile ids and distinctive secrets through the real process: nothing leaks, nothing else is harmed."""

from __future__ import annotations

import base64
import copy
import json
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lab.build import AddedCall
from lab.cases import Case
from lab.lab import Lab
from lab.service import ServiceAccount
from tests.support.daemon import FAST_RETRY, MuxerProcess, log_lines, wait_until
from tests.support.muxer_runs import labelled_ids, log_messages, write_config
from tests.support.tls import TlsFront, pem_bundle, self_signed

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 90
PASSWORDS = ("Hq7-secret-ops%1", 'Rz9 "quoted" ßecret', "Wd5\\secret\\dav")
KEY_IN_URL, LOGIN, PHONE = "sig-0f9e8d7c6b5a", "urluser:urlpass9", "+49 89 55501234"


def process_folders() -> set[Path]:
    """Return the /proc folders of all processes."""
    return set(Path("/proc").glob("[0-9]*"))


class ProcessWatcher:
    """Collects the command lines of all processes that start while the muxer runs."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._old = process_folders()
        self._stop = threading.Event()

    def __enter__(self) -> ProcessWatcher:
        self._thread = threading.Thread(target=self._collect_commands, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _collect_commands(self) -> None:
        while not self._stop.wait(0.01):
            there = process_folders()
            self._old &= there
            for process in there - self._old:
                try:
                    self.seen.add((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue  # it has just ended


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    running = Lab(tmp_path / "lab")
    for service, password in zip(("rws", "rcs", "dav"), PASSWORDS, strict=True):
        setattr(running.site, f"{service}_account", ServiceAccount(service, password))
    with running:
        yield running


def secret_forms() -> Iterator[str]:
    for secret in (*PASSWORDS, KEY_IN_URL, LOGIN, PHONE):
        yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret))
    yield from map(basic_auth, range(len(PASSWORDS)))


def basic_auth(number: int) -> str:
    """Return the credentials as HTTP sends them."""
    return base64.b64encode(f"{('rws', 'rcs', 'dav')[number]}:{PASSWORDS[number]}".encode()).decode()


def find_leaks(texts: dict[str, str]) -> list[str]:
    return [f"{where}: {secret}" for where, text in texts.items() for secret in set(secret_forms()) if secret in text]


def change_screen_metadata(lab: Lab, call: AddedCall, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the metadata of a call's screen file."""
    media = copy.deepcopy((lab.store.get_screen(call.id) or {})["mediaFiles"][0])
    lab.store.delete_screen_media(call.id, media["mediaId"])
    change(media)
    lab.store.add_screen_media(call.id, lab.region, media)


def serve_audio_by_link(lab: Lab, call: AddedCall) -> None:
    """Make the audio of a call available only through RWS, with a key in its URL."""
    recording = lab.store.get_call(call.id) or {}
    (media,) = recording["mediaFiles"]
    del media["originalMediaDescriptor"]
    media["mediaUri"] += f"?signature={KEY_IN_URL}"
    lab.store.add_call(recording)


def script_failures(lab: Lab, hopeless: AddedCall) -> None:
    """Make services fail and echo the request: some requests once, those for the media of `hopeless` always."""
    echo = f"no: {' '.join(PASSWORDS)} {' '.join(map(basic_auth, range(3)))}"
    body = json.dumps({"statusCode": 4, "statusMessage": echo}).encode()
    lab.store.fail_next("rws", "POST", "screen-recordings", 500, times=1, body=body)
    lab.store.fail_next("rcs", "GET", "play", 500, times=1, body=body)
    lab.store.fail_next("rws", "GET", f"content/{hopeless.audio_id}", 500, times=100, body=body)
    lab.store.fail_next("rws", "GET", "settings", 400, times=1, body=body)


def test_no_secret_leaks_whatever_fails(lab: Lab, tmp_path: Path) -> None:
    good = [lab.add_case(case)[0] for case in (Case.PLAIN, Case.ENCRYPTED)]
    (bad,) = lab.add_case(Case.PLAIN, serial=7)
    (keyed,) = lab.add_case(Case.PLAIN, serial=8)
    login = lab.dav_url.replace("http://", f"http://{LOGIN}@")
    change_screen_metadata(
        lab, bad, lambda media: media["originalMediaDescriptor"].update(data={"storagePath": f"{login}/nowhere/"})
    )
    serve_audio_by_link(lab, keyed)
    for call in (*good, bad, keyed):
        lab.store.add_call({**(lab.store.get_call(call.id) or {}), "callerPhoneNumber": PHONE})
    script_failures(lab, keyed)
    (ca := tmp_path / "ca.pem").write_bytes(pem_bundle(self_signed("ca", "ca")))
    options = {"logfile__level": "debug", "processing__min_poll_interval": "0.02"}
    texts: dict[str, str] = {}
    with ProcessWatcher() as watch, TlsFront(lab.rws_url, self_signed("other", "elsewhere")) as front:

        def run_muxer(what: str, happened: Callable[[Path], object], **more: str) -> Path:
            config, log = write_config(lab, **options, **more)
            with MuxerProcess(config, umask=0, **FAST_RETRY) as muxer:
                wait_until(lambda: happened(log), TIMEOUT_SECONDS, what, log)
                assert muxer.stop() == 0
            texts.update({f"{what}, stderr": muxer.err, f"{what}, stdout": muxer.out})
            return log

        wrong = {"htcc__password": f"{PASSWORDS[0]}x", "webdav__password": f"{PASSWORDS[2]}x"}
        run_muxer(
            "a wrong password",
            lambda log: any("check user name and password" in message for message in log_messages(log)),
            **wrong,
        )
        tls = {"htcc__base_uri": front.url, "htcc__trusted_ca": str(ca)}
        run_muxer("a TLS error", lambda log: any("TLS failed" in message for message in log_messages(log)), **tls)
        ids = {call.id for call in good}
        log = run_muxer("success", lambda log: labelled_ids(lab) >= ids and has_failed(log, bad) and has_failed(log, keyed))
    texts["log"] = "".join(path.read_text() for path in log.parent.iterdir())
    temp = lab.folder / "temp"
    texts["temp_dir"] = "".join(path.read_bytes().decode("latin-1") for path in temp.rglob("*") if path.is_file())
    database = sqlite3.connect(temp / "journal.sqlite3")
    texts["journal"] = "\n".join(map(repr, database.execute("SELECT * FROM targets").fetchall()))
    database.close()
    texts["command lines"] = "\n".join(watch.seen)
    assert find_leaks(texts) == []
    assert "***" in texts["log"] and "***" in texts["journal"]
    assert "fast_retry_launcher.py" in texts["command lines"] and "ffmpeg" in texts["command lines"]
    assert any(bad.id in line for line in texts["journal"].splitlines())
    assert_private(temp)


def has_failed(log: Path, call: AddedCall) -> bool:
    lines = (line for line in log_lines(log) if line["message"].startswith("recording failed"))
    return any(line.get("recording") == call.id for line in lines)


def assert_private(folder: Path) -> None:
    """Check that everything below a folder is accessible only to its owner."""
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}
    assert modes and not {path: oct(mode) for path, mode in modes.items() if mode & 0o077}
