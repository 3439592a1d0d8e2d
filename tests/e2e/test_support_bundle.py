"""Command `support-bundle` next to the real muxer: all that support needs, and no secret, name or number of a person."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from lab.build import AddedCall
from lab.cases import Agent, CallPlan, ScreenPart
from lab.lab import Lab
from lab.service import ServiceAccount
from tests.support.calls import add_short, screen_file
from tests.support.commands import run_in_process, run_subprocess
from tests.support.daemon import FAST_RETRY, MuxerProcess, log_lines, wait_until
from tests.support.disk import small_disk
from tests.support.muxer_runs import labelled_ids, write_config

TIMEOUT_SECONDS = 90
PASSWORDS = {"rws": "Hq7-secret-ops%1", "rcs": "Rz9 quoted ßecret", "dav": "Wd5\\secret\\dav"}
LOGIN, NAME, FIRST, LAST = "zoltan.quastenhuber", "Bräsig Öhrlein", "Xanthippe", "Wurzelbacher"
CALLER, ECHOED = "+498955501234", "+43 1 77788899"
# What no part of an archive may contain: in lower case, without separators.
TRACES = (
    "secret",
    "ßecret",
    "quastenhuber",
    "zoltan",
    "öhrlein",
    "bräsig",
    "wurzelbacher",
    "xanthippe",
    "55501234",
    "77788899",
)
MEMBERS = {"README.txt", "config.json", "versions.json", "status.json", "failed.json", "journal.json", "check.json"}


def read_archive(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {Path(member.name).name: archive.extractfile(member).read().decode() for member in archive.getmembers()}


def find_traces(texts: dict[str, str]) -> list[str]:
    """Return the traces of people and passwords in texts, as they are, decoded, and in JSON."""
    found = []
    for where, text in texts.items():
        forms = {text, unquote(text), unquote(unquote(text)), text.encode().decode("unicode_escape", errors="replace")}
        # The text of the archive itself is about secrets.
        plain = [form.lower().replace("secrets", "").replace("secret_access_key", "") for form in forms]
        plain += [form.replace(" ", "").replace("-", "") for form in plain]
        found += [f"{where}: {trace}" for trace in TRACES if any(trace in form for form in plain)]
    return found


@pytest.fixture
def lab(kept_lab: type[Lab], tmp_path: Path) -> Iterator[Lab]:
    running = kept_lab(tmp_path / "lab")
    for service, password in PASSWORDS.items():
        setattr(running.site, f"{service}_account", ServiceAccount(service, password))
    with running:
        yield running


def add_calls(lab: Lab) -> tuple[AddedCall, AddedCall]:
    """Add a call of each of two agents with distinctive names and numbers; the screen file of the second one is empty."""
    calls = []
    for number, login in enumerate((LOGIN, NAME)):
        agent = Agent(login, FIRST, LAST, number, "7001")
        (call,) = add_short(lab, [number], plan=CallPlan("named", 4, (ScreenPart(0, 4, agent),)))
        lab.store.add_call({**(lab.store.get_call(call.id) or {}), "callerPhoneNumber": CALLER})
        calls.append(call)
    screen_file(lab, calls[1]).write_bytes(b"")
    return calls[0], calls[1]


def echo_metadata(lab: Lab) -> None:
    """Let the next write to RWS fail with a text that contains what people must not see."""
    text = f"user {NAME} at {ECHOED}, {quote(NAME)}, {quote(ECHOED)}, {' '.join(PASSWORDS.values())}"
    body = json.dumps({"statusCode": 4, "statusMessage": text}).encode()
    lab.store.fail_next("rws", "POST", "screen-recordings", 400, body=body)


def test_the_archive_contains_everything_but_secrets_names_and_numbers(lab: Lab, tmp_path: Path) -> None:
    good, bad = add_calls(lab)
    echo_metadata(lab)
    query = f"callerPhoneNumber={quote(CALLER)}"
    config, log = write_config(
        lab,
        advanced__call_recording_extra_query_string=query,
        advanced__incomplete_after="0",
        logfile__level="debug",
        monitoring__username=FIRST,
    )
    texts: dict[str, dict[str, str]] = {}

    def write_bundle(what: str, *arguments: str) -> dict[str, Any]:
        code, out, err = run_subprocess(config, "support-bundle", f"--output={tmp_path / what}.tar.gz", "--json", *arguments)
        assert code == 0, err
        path = Path(json.loads(out)["path"])
        assert path == tmp_path / f"{what}.tar.gz" and stat.S_IMODE(path.stat().st_mode) == 0o600
        texts[what] = read_archive(path)
        assert not find_traces({**texts[what], "stdout": out, "stderr": err})
        return json.loads(out)["missing"]

    def logged(*words: str) -> bool:
        return log.exists() and all(word in log.read_text() for word in words)

    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(lambda: logged("MUX-322", "77788899"), TIMEOUT_SECONDS, "both errors", log)
        wait_until(lambda: bad.id in run_in_process(config, "failed", "--json")[1], TIMEOUT_SECONDS, "the failure", log)
        assert write_bundle("running") == {}
        wait_until(lambda: good.id in labelled_ids(lab), TIMEOUT_SECONDS, "the muxed file", log)
        assert muxer.stop() == 0
    raw = {"log": log.read_text(), "journal": (lab.folder / "temp" / "journal.sqlite3").read_bytes().decode("latin-1")}
    assert {trace.partition(": ")[2] for trace in find_traces(raw)} >= {"quastenhuber", "77788899"}, "the names were there"
    assert write_bundle("stopped", "--no-check") == {"check.json": "--no-check was given"}

    running = texts["running"]
    assert set(running) == {*MEMBERS, log.name}
    settings = {f"{one['section']}.{one['option']}": one for one in json.loads(running["config.json"])["settings"]}
    assert settings["htcc.password"]["value"] == "********" and settings["htcc.password"]["origin"].startswith("file, line")
    assert json.loads(running["status.json"])["standing"] == "runs"
    assert json.loads(texts["stopped"]["status.json"])["standing"] == "does not run"
    failed = {row["recording"]: row for row in json.loads(running["failed.json"])}
    assert failed[bad.id]["code"] == "MUX-322" and failed[bad.id]["agent"].startswith("person-")
    assert failed[bad.id]["agent"] in failed[bad.id]["reason"], "the same pseudonym in the name of the file"
    checks = {one["check"]: one["status"] for one in json.loads(running["check.json"])}
    assert checks["RWS login"] == "ok", checks
    versions = json.loads(running["versions.json"])
    assert "ffmpeg version" in versions["programs"]["ffmpeg"] and "requests" in {one.lower() for one in versions["packages"]}
    assert sum(json.loads(texts["stopped"]["journal.json"])["targets"].values()) == 2
    lines = [json.loads(line) for line in running[log.name].splitlines()]
    assert [line["time"] for line in lines] == [line["time"] for line in log_lines(log)][: len(lines)]
    assert any(line["level"] == "debug" for line in lines)
    assert all(name in running["README.txt"] for name in running if name != "README.txt" and not name.endswith(".log"))


def test_an_archive_is_not_overwritten(lab: Lab, tmp_path: Path) -> None:
    config, _ = write_config(lab)
    (there := tmp_path / "there.tar.gz").write_text("mine")
    code, out, err = run_in_process(config, "support-bundle", "--no-check", f"--output={there}")
    assert (code, out, there.read_text()) == (1, "", "mine") and "exists already" in err
    code, out, err = run_in_process(config, "support-bundle", "--no-check", f"--output={tmp_path}")
    (made,) = tmp_path.glob("recording-muxer-support-single-*Z.tar.gz")
    assert code == 0 and str(made) in out
    assert "not included: failed.json: there is no journal at" in err and "not included: log files" in err
    code, _, err = run_in_process(config, "support-bundle", "--no-check", "--output=/proc/none/x.tar.gz")
    assert code == 1 and "cannot write /proc/none/x.tar.gz: the folder does not exist" in err
    code, _, err = run_in_process(config, "support-bundle", "--no-check", f"--output={tmp_path / ('x' * 300)}")
    assert code == 1 and "cannot write" in err and "File name too long" in err


def test_on_a_full_disk_no_part_of_an_archive_remains(lab: Lab, tmp_path: Path) -> None:
    config, _ = write_config(lab)
    with small_disk(tmp_path / "disk", "4k") as disk:
        code, _, err = run_in_process(config, "support-bundle", "--no-check", f"--output={disk}")
        assert code == 1 and "cannot write" in err and list(disk.iterdir()) == []


@pytest.mark.parametrize("text", ["[processing]\nwindow_past = zero\nnumber = 089 55501234\n", "window_past = 1\n", None])
def test_a_broken_configuration_is_in_the_archive(tmp_path: Path, text: str | None) -> None:
    """With sections that are wrong, with a file that cannot be parsed, and without a file."""
    config = tmp_path / "muxer.cfg"
    if text is not None:
        config.write_text(text)
    code, out, _ = run_in_process(config, "support-bundle", "--json", f"--output={tmp_path / 'x.tar.gz'}")
    assert code == 0
    files = read_archive(tmp_path / "x.tar.gz")
    assert not find_traces(files)
    document = json.loads(files["config.json"])
    assert document["problems"] and len(document["settings"]) > 50
    (configuration, *_) = json.loads(files["check.json"])
    assert configuration["status"] == "failed"
    assert "failed.json" in json.loads(out)["missing"] and "failed.json" in files["README.txt"]


def test_a_check_that_hangs_does_not_prevent_the_archive(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxer.commands.support_bundle.CHECK_TIMEOUT_SECONDS", 0.0)
    config, _ = write_config(lab)
    code, out, _ = run_in_process(config, "support-bundle", "--json", f"--output={tmp_path / 'x.tar.gz'}")
    assert code == 0 and "did not finish" in json.loads(out)["missing"]["some checks"]


def test_rotated_logs_and_those_of_workers_are_limited(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxer.commands.support_bundle.MAX_LOG_FILE_BYTES", 1000)
    monkeypatch.setattr("muxer.commands.support_bundle.MAX_LOG_BYTES", 3500)
    config, log = write_config(
        lab, fleet__mode="broker", fleet__broker_url="amqp://u:secret-of-broker@127.0.0.1:9/v", logfile__format="text"
    )
    log.parent.mkdir(exist_ok=True)
    workers = ["recording-muxer-worker-0.log", "recording-muxer-worker-1.log"]
    names = [log.name, f"{log.name}.1", "recording-muxer-refused.log", *workers]
    for age, name in enumerate(names):
        path = log.parent / name
        path.write_text("".join(f"{number} agent=quastenhuber {'x' * 80}\n" for number in range(100)))
        os.utime(path, (1e9 - age, 1e9 - age))
    (log.parent / "recording-muxer-other.log").write_text("of another instance\n")
    code, out, err = run_in_process(config, "support-bundle", "--no-check", "--json", f"--output={tmp_path / 'x.tar.gz'}")
    assert code == 0, err
    files = read_archive(tmp_path / "x.tar.gz")
    assert {name for name in files if ".log" in name} == set(names[:4])
    assert names[4] in json.loads(out)["missing"]
    assert not find_traces(files)
    assert files[log.name].splitlines()[-1].startswith("99 agent=person-"), "the last lines"
    assert all(line.endswith("x" * 80) for name in names[:4] for line in files[name].splitlines()), "only complete lines"


def test_compressed_logs_are_unpacked(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As logrotate leaves them. A damaged one, or one that another program has compressed, is named."""
    monkeypatch.setattr("muxer.commands.support_bundle.MAX_LOG_FILE_BYTES", 1000)
    monkeypatch.setattr("muxer.commands.support_bundle.UNPACK_BYTES", 300)
    config, log = write_config(lab, logfile__format="text")
    log.parent.mkdir(exist_ok=True)
    long = "".join(f"{number} agent=quastenhuber {'x' * 80}\n" for number in range(100)).encode()
    packed = {"2": gzip.compress(long), "3": gzip.compress(b"short\n"), "4": gzip.compress(long)[:-20], "5": b"no gzip"}
    for number, content in packed.items():
        (log.parent / f"{log.name}.{number}.gz").write_bytes(content)
    (log.parent / f"{log.name}.6.xz").write_bytes(b"\xfd7zXZ")
    code, out, err = run_in_process(config, "support-bundle", "--no-check", "--json", f"--output={tmp_path / 'x.tar.gz'}")
    assert code == 0, err
    files, missing = read_archive(tmp_path / "x.tar.gz"), json.loads(out)["missing"]
    assert not find_traces(files)
    lines = files[f"{log.name}.2.gz.txt"].splitlines()
    assert lines[-1].startswith("99 agent=person-") and 5 < len(lines) < 12 and all(one.endswith("x" * 80) for one in lines)
    assert files[f"{log.name}.3.gz.txt"].splitlines() == ["short"]
    assert {name for name in missing if name.startswith(log.name)} == {
        *(f"{log.name}.{end}" for end in ("4.gz", "5.gz", "6.xz"))
    }
