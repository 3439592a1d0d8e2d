"""Sixty and more configurations of a new administrator, each through the real program: what it says, and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lab.lab import Lab
from muxer.config.keystore import KEYSTORE_FILE, save_keystore
from tests.support.commands import run_main_in_process
from tests.support.fake_program import write_wrapper
from tests.support.ports import free_port

# Valid, with a server that nothing listens for: {port}.
BASE = {
    "htcc": {"base_uri": "http://127.0.0.1:{port}", "contact_center_id": "center", "password": "geheim99"},
    "processing": {"temp_dir": "{folder}/temp"},
    "logfile": {"logfile_path": "{folder}/log"},
}
# The part of the program that reads the configuration: the start, `config`, which connects to nothing, or `check`.
START, SHOW, CHECK = "run", "config", "check"
Prepare = Callable[[Path], object]


@dataclass(frozen=True)
class Row:
    """A configuration and what is said about it: every text of `says` on stdout or stderr.

    `change` sets options as ``section.option`` (None removes one), `text` replaces the whole file (None: no file),
    `prepare` gets the folder of the file. {folder} and {port} are replaced in all texts.
    """

    says: tuple[str, ...]
    change: dict[str, str | None] = field(default_factory=dict)
    text: str | bytes | None = ""
    prepare: Prepare = lambda folder: None
    environ: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("--config-file={folder}/muxer.cfg",)


def refused(option: str, *says: str, **more: object) -> Row:
    """Return the row of a start that is refused because of the value of an option."""
    section, _, rest = option.partition(".")
    name, _, value = rest.partition(" = ")
    where = f"[{section}] {name}"
    return Row((where, *says), {f"{section}.{name}": value}, **more)


def write_file(name: str, data: bytes = b"", mode: int = 0o600) -> Prepare:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(data)
        (folder / name).chmod(mode)

    return write


def write_keystore(data: bytes | None = None, mode: int = 0o600) -> Prepare:
    def write(folder: Path) -> None:
        save_keystore(folder, {("htcc", "password"): "geheim99"})
        if data is not None:
            (folder / KEYSTORE_FILE).write_bytes(data)
        (folder / KEYSTORE_FILE).chmod(mode)

    return write


MINIMUM = "[htcc]\nbase_uri = http://rws:8081\ncontact_center_id = center\npassword = geheim99\n"
REFUSED = {
    # ---- the file ----
    "no file": Row(("configuration file {folder}/muxer.cfg: does not exist",), text=None),
    "empty file": Row(("[htcc] base_uri: is required", "[htcc] contact_center_id: is required"), text="\n"),
    "UTF-16": Row(("is UTF-16 text", "save it as UTF-8"), text=MINIMUM.encode("utf-16")),
    "UTF-16 without a mark": Row(("is UTF-16 text", "save it as UTF-8"), text=MINIMUM.encode("utf-16-le")),
    "Latin-1": Row(("line 5 is not UTF-8 text",), text=f"{MINIMUM}username = Jürgen\n".encode("latin-1")),
    "before the first section": Row(("line 1 is before the first [section]",), text="base_uri = http://rws\n"),
    "no value": Row(("not of the form 'option = value': line 5",), text=f"{MINIMUM}rws_timeout 30\n"),
    "option twice": Row(("line 5: [htcc] base_uri is given twice",), text=f"{MINIMUM}base-uri = http://rws\n"),
    "section twice": Row(("line 5: section [htcc] is given twice",), text=f"{MINIMUM}[htcc]\n"),
    "rsc and rcs": Row(
        ("[rcs] username: is given twice", "both read as [rcs]"), text=f"{MINIMUM}[rsc]\nusername=a\n[rcs]\nusername=b\n"
    ),
    "indented line": Row(
        ("[htcc] password: contains a line break", "without leading spaces", "(file, line 4)"),
        text=f"{MINIMUM}  rws_timeout = 60\n",
    ),
    # ---- the command line ----
    "no argument": Row(("command line: the following arguments are required: --config-file",), arguments=()),
    "unknown argument": Row(
        ("command line: unrecognized arguments: --verbose", "usage: recording-muxer run"),
        arguments=("--config-file={folder}/muxer.cfg", "--verbose"),
    ),
    "argument": Row(
        ("[processing] muxer_id = 'one': must be a whole number", "(command line --muxer-id)"),
        arguments=("--config-file={folder}/muxer.cfg", "--muxer-id=one"),
    ),
    # ---- addresses ----
    "no scheme": refused("htcc.base_uri = rws:8081", "must be an address such as https://host:port", "(file, line 2)"),
    "blank in address": refused("htcc.base_uri = http://rws: 8081", "must be an address without spaces"),
    "user in address": refused(
        "htcc.base_uri = http://ops:geheim99@rws", "***@rws", "use the options username and password"
    ),
    "query in address": refused("rcs.base_uri = http://rcs/?a=b", "must not contain a query"),
    "port": refused("htcc.base_uri = http://rws:80810", "not a number from 0 to 65535"),
    "comment behind address": refused("htcc.base_uri = http://rws ; live", "a comment needs a separate line"),
    "hosts": refused("webdav.hosts = http://dav/", "comma-separated list of names such as dav.example.com"),
    "S3 address": refused("s3.endpoint_url = store", "must be an address such as https://host:port"),
    # ---- numbers ----
    "too small": refused("htcc.rws_timeout = 10", ">= 30 and at most 86400, in seconds"),
    "unit": refused("htcc.rws_timeout = 60 s", "'60 s'", "in seconds and without a unit behind it"),
    "minutes": refused("processing.window_past = 12h", "in minutes and without a unit behind it"),
    "comment behind number": refused("processing.window_past = 720 ; minutes", "a comment needs a separate line"),
    "number sign": refused("advanced.worker_threads = 5 # cores", "a comment needs a separate line"),
    "quotes": refused('processing.window_past = "720"', "the quotes around the value are part of it"),
    "comma": refused("processing.min_poll_interval = 0,5", "must be a number >= 0"),
    "not a number": refused("processing.window_past = nan", "must be a number > 0"),
    "zero threads": refused("advanced.worker_threads = 0", ">= 1 and at most 1000"),
    "too large a page": refused("advanced.pagination = 1000000", "at most 100000"),
    "bytes": refused("logfile.max_bytes = 10M", "in bytes and without a unit behind it"),
    "window": refused("processing.window_past_older_than = 720", "must be less than window_past (720)", "(file, line 7)"),
    "shard": Row(
        ("[processing] muxer_id = '2'", "must be less than total_muxers (2)"),
        {"processing.muxer_id": "2", "processing.total_muxers": "2"},
    ),
    # ---- words ----
    "switch": refused("advanced.mark_screen_recording_label = yes", "1 = on, any other = off"),
    "muxer type": Row(
        ("[processing] muxer_type = 'second'", "must be one of: primary, backup"),
        {"processing.muxer_id": "0", "processing.muxer_type": "second"},
    ),
    "level": refused("logfile.level = verbose", "must be one of: debug, info, warning, error"),
    "format": refused("logfile.format = xml", "must be one of: text, json"),
    "codec": refused("advanced.audio_codec = mp3", "must be one of: copy, aac"),
    "addressing style": refused("s3.addressing_style = dns", "must be one of: path, virtual, auto"),
    "query": refused("advanced.call_recording_query_string = all", "name=value"),
    "extra query": refused(
        "advanced.call_recording_extra_query_string = startTime=1", "window_past, window_past_older_than"
    ),
    # ---- files, folders and programs ----
    "no temp_dir": refused("processing.temp_dir = {folder}/none", "must be the path of a folder that exists"),
    "temp_dir is a file": refused("processing.temp_dir = {folder}/muxer.cfg", "must be the path of a folder that exists"),
    "no log folder": refused("logfile.logfile_path = {folder}/none", "must be the path of a folder that exists"),
    "no bundle": refused("htcc.trusted_ca = {folder}/ca.pem", "must be true, false or the path of a PEM file"),
    "empty bundle": refused("rcs.trusted_ca = {folder}/ca.pem", "is an empty file", prepare=write_file("ca.pem")),
    "DER bundle": refused(
        "htcc.trusted_ca = {folder}/ca.pem",
        "contains no certificate in PEM format",
        prepare=write_file("ca.pem", b"\x30\x82"),
    ),
    "half a bundle": refused(
        "webdav.trusted_ca = {folder}/ca.pem",
        "is corrupt: a certificate in it has no end line",
        prepare=write_file("ca.pem", b"-----BEGIN CERTIFICATE-----\nMII"),
    ),
    "no ffmpeg": refused(
        "processing.ffmpeg = /nowhere/ffmpeg", "is not the path of an executable file; install the program"
    ),
    "not executable": refused(
        "processing.ffprobe = {folder}/ffprobe", "is not the path of an executable file", prepare=write_file("ffprobe")
    ),
    "not on the PATH": refused("processing.openssl = openssl99", "is not on the PATH; install the program"),
    # ---- passwords ----
    "corrupt keystore": Row(
        ("{folder}/muxer.keystore: is not a keystore of the muxer, or is corrupt",),
        {"htcc.password": None},
        prepare=write_keystore(b"{}"),
    ),
    "open keystore": Row(
        ("{folder}/muxer.keystore: is open to other accounts", "chmod 600"),
        {"htcc.password": None},
        prepare=write_keystore(mode=0o644),
    ),
    # ---- monitoring and fleet ----
    "monitoring port": refused("monitoring.http_port = 94777", ">= 0 and at most 65535"),
    "open monitoring": Row(
        ("[monitoring] http_address = '0.0.0.0'",), {"monitoring.http_port": "9477", "monitoring.http_address": "0.0.0.0"}
    ),
    "no broker": Row(("[fleet] broker_url: is required with mode = broker",), {"fleet.mode": "broker"}),
    "broker address": Row(
        ("[fleet] broker_url: must be an address such as amqps://user:password@host:5671/vhost",),
        {"fleet.broker_url": "http://ops:geheim99@mq"},
    ),
    "queue": refused("fleet.queue = amq.tasks", "must not start with amq."),
}
WARNED = {
    "section of another option": Row(
        ("unknown option [advanced] window_past (line 6) is ignored; it belongs to [processing]",),
        text=f"{MINIMUM}[advanced]\nwindow_past = 60\n",
    ),
    "option of two sections": Row(("it belongs to [htcc] or [rcs]",), text=f"{MINIMUM}[processing]\nbase_uri = http://a\n"),
    "misspelt option": Row(
        ("unknown option [htcc] pasword (line 5)", "did you mean password?"), text=f"{MINIMUM}pasword=x\n"
    ),
    "misspelt section": Row(("unknown section [procesing]", "did you mean processing?"), text=f"{MINIMUM}[procesing]\n"),
    "rsc": Row(("section [rsc] is read as [rcs]",), text=f"{MINIMUM}[rsc]\nusername = a\n"),
    "unchecked TLS": Row(("[htcc] trusted_ca = false: TLS certificates are not checked",), {"htcc.base_uri": "https://rws"}),
    "default account": Row(
        ("[htcc] username and password not set: the muxer sends the default, ops", "HTCC_PASSWORD"), {"htcc.password": None}
    ),
    "default password": Row(
        ("[htcc] password not set: the muxer sends the default, ops",), {"htcc.password": None, "htcc.username": "recorder"}
    ),
    "quoted password": Row(
        ("[htcc] password (file, line 4) may not be meant as it is written: the quotes around the value are part of it",),
        {"htcc.password": "'geheim99'"},
    ),
    "quoted contact center": Row(
        ("[htcc] contact_center_id (file, line 3) may not be meant as it is written: the quotes around",),
        {"htcc.contact_center_id": '"center"'},
    ),
    "comment behind text": Row(
        (
            "[htcc] contact_center_id (file, line 3) may not be meant as it is written",
            "the text from ; on is part of the value",
        ),
        {"htcc.contact_center_id": "center ; live"},
    ),
    "comment behind password": Row(
        (
            "[htcc] password (file, line 4) may not be meant as it is written: the text from # on",
            "a comment needs a separate line",
        ),
        {"htcc.password": "geheim99 # of 2026"},
    ),
    "RCS without its password": Row(
        ("[rcs] password not set: the muxer sends an empty password", "RCS_PASSWORD or the keystore"),
        {"rcs.base_uri": "https://rcs.example.com", "rcs.username": "muxer"},
    ),
    "WebDAV without its password": Row(
        ("[webdav] password not set: the muxer sends an empty password", "WEBDAV_PASSWORD or the keystore"),
        {"webdav.username": "gir"},
    ),
    "blank in the environment": Row(
        (
            "[htcc] password (environment HTCC_PASSWORD) may not be meant as it is written",
            "the value begins or ends with a blank",
        ),
        environ={"HTCC_PASSWORD": "geheim99 "},
    ),
    "long window": Row(("the window is longer than 720 minutes",), {"processing.window_past": "1440"}),
    "no shard": Row(("[processing] total_muxers = '2'", "sharding is off"), {"processing.total_muxers": "2"}),
    "query parameter": Row(
        ("no query parameter 'userdata'", "did you mean userData?"),
        {"advanced.call_recording_extra_query_string": "userdata=x"},
    ),
}
FAILED = {
    "nothing listens": Row(("RWS address", "nothing listens on port {port} there: start RWS, or correct [htcc] base_uri")),
    "host name": Row(("RWS address", "correct the host name in [htcc] base_uri"), {"htcc.base_uri": "http://rws.invalid"}),
    "ffprobe is ffmpeg": Row(
        ("ffprobe", "it is ffmpeg, not ffprobe", "set [processing] ffprobe to another one"),
        {"processing.ffprobe": "{folder}/ffmpeg"},
        prepare=lambda folder: write_wrapper(folder / "ffmpeg", "ffmpeg", "never", ""),
    ),
    "several": Row(
        ("fix this first: temp_dir: ", "2 failed"),
        prepare=lambda folder: (folder / "temp").chmod(0o777),
    ),
}
SKIPPED = {
    "keystore": Row(
        (
            "failed\tconfiguration\t{folder}/muxer.keystore: is not a keystore of the muxer",
            "\tfollow the text, then run check again\n",
            "RWS address\t127.0.0.1 port {port}",
            "skipped\tRWS login\tnot checked: needs [htcc] password (the keystore cannot be used, and may hold it)",
        ),
        {"htcc.password": None},
        prepare=write_keystore(b"{}"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("temp", "log"):
        (tmp_path / name).mkdir(mode=0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/recording-muxer"])
    for name in [name for name in os.environ if name.endswith("_PASSWORD")]:
        monkeypatch.delenv(name)
    yield tmp_path


def config_text(change: dict[str, str | None]) -> str:
    sections = {section: dict(options) for section, options in BASE.items()}
    for key, value in change.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {}).pop(name, None) if value is None else sections.setdefault(section, {}).update(
            {name: value}
        )
    return "".join(f"[{one}]\n" + "".join(f"{k} = {v}\n" for k, v in pairs.items()) for one, pairs in sections.items())


def run_row(row: Row, command: str, folder: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the program with the configuration of a row; check what it says, and return its exit code."""

    def fill_in(text: str) -> str:
        return text.replace("{folder}", str(folder)).replace("{port}", str(port))

    if row.text is not None:
        content = row.text or fill_in(config_text(row.change))
        (folder / "muxer.cfg").write_bytes(content if isinstance(content, bytes) else content.encode())
    row.prepare(folder)
    for name, value in row.environ.items():
        monkeypatch.setenv(name, value)
    code, out, err = run_main_in_process(command, *map(fill_in, row.arguments))
    for text in row.says:
        assert fill_in(text) in out + err
    assert "geheim99" not in out + err
    return code


@pytest.mark.parametrize("name", REFUSED)
def test_a_start_is_refused(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_row(REFUSED[name], START, folder, 8081, monkeypatch) == 2


@pytest.mark.parametrize("name", WARNED)
def test_a_warning_is_shown(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_row(WARNED[name], SHOW, folder, 8081, monkeypatch) == 0


@pytest.mark.parametrize("name", FAILED)
def test_a_check_fails(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_row(FAILED[name], CHECK, folder, free_port(), monkeypatch) == 1


def test_an_unusable_keystore_skips_what_needs_a_password(
    make_lab: Callable[..., Lab], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab()
    port = int(lab.rws_url.rpartition(":")[2])
    assert run_row(SKIPPED["keystore"], CHECK, folder, port, monkeypatch) == 2
    assert not lab.store.served_requests, "no request is sent with the default password"


def test_the_option_to_correct_first_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "fix this first: configuration: [htcc] rws_timeout = '5': must be a whole number >= 30"
    row = Row(
        (says, "; correct it: {folder}/muxer.cfg, line 5\n"), {"htcc.rws_timeout": "5", "processing.window_past": "soon"}
    )
    assert run_row(row, CHECK, folder, 8081, monkeypatch) == 2


ORIGINS = {
    "default": Row(
        ("password (default): store the right password with encryptPassword.py, or set HTCC_PASSWORD",),
        {"htcc.password": None},
    ),
    "file": Row(("password (file, line 4)",), {"htcc.password": "geheim99"}),
    "environment": Row(("password (environment HTCC_PASSWORD)",), environ={"HTCC_PASSWORD": "geheim99"}),
    "keystore": Row(("password (keystore)",), {"htcc.password": None}, prepare=write_keystore()),
}


@pytest.mark.parametrize("name", ORIGINS)
def test_a_rejected_password_is_reported_with_its_origin(
    make_lab: Callable[..., Lab], folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab()
    lab.site.rws_account = replace(lab.site.rws_account, password="another one")
    assert run_row(ORIGINS[name], CHECK, folder, int(lab.rws_url.rpartition(":")[2]), monkeypatch) == 1


def test_a_program_that_is_another_one_is_refused_with_its_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "[processing] ffprobe: cannot be used: it is ffmpeg, not ffprobe (file, line 7)"
    row = Row((says,), {"processing.ffprobe": "{folder}/ffmpeg"}, prepare=FAILED["ffprobe is ffmpeg"].prepare)
    assert run_row(row, START, folder, 8081, monkeypatch) == 2
