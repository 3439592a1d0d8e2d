"""Command `plan`: reports how a call recording would be muxed, without a single write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.cases import CASE_PLANS, Case
from lab.lab import Lab
from muxer.polling.sharding import shard_of
from tests.support.commands import run_in_process, run_json_in_process, run_on_terminal, run_subprocess
from tests.support.daemon import MuxerProcess, wait_until
from tests.support.muxer_runs import muxed_entries, write_config

Make = Callable[..., Lab]
IDS = {plan.name: plan.recording_id() for plans in CASE_PLANS.values() for plan in plans}
CASES = [Case.GAPS, Case.TRANSFER, Case.ENCRYPTED, Case.BEFORE, Case.NOTHING]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[Lab]) -> Iterator[Lab]:
    with kept_lab(tmp_path_factory.mktemp("plan")) as lab:
        lab.add_cases(CASES)
        yield lab


@pytest.fixture(scope="module")
def config(lab: Lab) -> Path:
    return write_config(lab)[0]


def stored_state(lab: Lab) -> dict[str, object]:
    """Return everything that a write would change."""
    folder = lab.site.media.folder
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    recordings = {one: (lab.store.get_call(one), lab.store.get_screen(one)) for one in lab.store.find_calls(lambda _: True)}
    return {"files": files, "recordings": recordings}


def temp_files(lab: Lab) -> list[str]:
    """Return the command folders that are left in the temporary folder."""
    return [path.name for path in (lab.folder / "temp").glob("command-*")]


def test_a_call_with_gaps_is_reported_and_drawn_and_nothing_is_written(lab: Lab, config: Path) -> None:
    before, seen = stored_state(lab), len(lab.store.served_requests)
    code, out, err = run_subprocess(config, "plan", IDS["gaps"])
    assert (code, err) == (0, "")
    assert out.isascii()
    for text in (
        "agent agent1: to be muxed; the label screenRecording is missing",
        "36.0 s by its metadata, 36.000 s measured",
        "h264, 640x360, not encrypted",
        "0:00 to 0:04 (4.000 s) black; 0:19 to 0:24 (5.000 s) black; 0:31 to 0:36 (5.000 s) black",
        "copy, nothing is re-encoded",
        "rcs_lab:1",
        "_muxed.mp4.bin",
        "-f lavfi -i color=c=black",
        "openssl cms -encrypt",
    ):
        assert text in out
    [result] = [line for line in out.splitlines() if line.startswith("result ")]
    assert re.fullmatch(r"\.+=+\.+=+\.+", result.split()[1])
    assert {request.method for request in lab.store.served_requests[seen:]} <= {"GET"}
    assert stored_state(lab) == before
    assert temp_files(lab) == []


def test_the_same_as_json(lab: Lab, config: Path) -> None:
    report = run_json_in_process(config, "plan", IDS["before"])
    [target] = report["targets"]
    assert (target["published"], target["needs_work"]) == (False, True)
    assert [source["encrypted"] for source in target["sources"]] == [False, False]
    assert target["measured"][1]["length"] == pytest.approx(32, abs=0.1)
    assert target["method"] == "starts between keyframes"
    assert target["timeline"]["screens"][0]["start"] == -3
    assert target["timeline"]["pieces"][0]["reason"] == "starts between keyframes"
    assert sum("libx264" in command for command in target["commands"]) == 1
    assert [len(target[name]) for name in ("recipients", "gaps", "overlaps", "done")] == [2, 0, 0, 0]


def test_no_fetch_sends_nothing_to_a_storage(lab: Lab, config: Path) -> None:
    seen = len(lab.store.served_requests)
    report = run_json_in_process(config, "plan", IDS["transfer"], "--no-fetch")
    assert [target["agent"] for target in report["targets"]] == ["agent1", "agent2"]
    assert [target["gaps"] for target in report["targets"]] == [[{"begin": 15, "end": 32}], [{"begin": 0, "end": 16}]]
    assert {request.service for request in lab.store.served_requests[seen:]} == {"rws"}


@pytest.mark.long
def test_the_shard_is_reported_when_sharding_is_on(lab: Lab, config: Path, tmp_path: Path) -> None:
    assert "shard" not in run_json_in_process(config, "plan", IDS["transfer"], "--no-fetch")
    mine = shard_of(IDS["transfer"], 3)
    text, sharded = config.read_text(), tmp_path / "muxer.cfg"
    for number, kind, ours in ((mine, "primary", mine), (mine, "backup", (mine + 1) % 3)):
        options = f"muxer_id = {number}\nmuxer_type = {kind}\ntotal_muxers = 3\n"
        sharded.write_text(text.replace("[processing]\n", f"[processing]\n{options}"))
        code, out, err = run_in_process(sharded, "plan", IDS["transfer"], "--no-fetch")
        whose = "this instance" if ours == mine else f"another instance; this one has shard {ours}"
        assert code == 0 and f"\nshard {mine} of 3 (counted from 0): {whose}\n" in out, err
    report = run_json_in_process(sharded, "plan", IDS["transfer"], "--no-fetch")
    assert report["shard"] == {"number": mine, "of": 3, "ours": (mine + 1) % 3}


def test_a_muxed_recording_is_reported_with_the_name_that_force_would_use(lab: Lab, config: Path) -> None:
    code, out, _ = run_in_process(config, "plan", IDS["muxed"], "--no-fetch")
    assert code == 0
    assert "already muxed, " in out and "_lab_muxed.mp4" in out and "with mux --force" in out


@pytest.mark.parametrize(
    ("name", "text"),
    [("", "RWS knows no call recording 'nobody'"), ("no-screen", "it has no screen recording, so there is nothing to mux")],
)
def test_a_recording_that_cannot_be_planned_is_an_error(lab: Lab, config: Path, name: str, text: str) -> None:
    code, out, err = run_in_process(config, "plan", IDS[name] if name else "nobody")
    assert (code, out) == (1, "")
    assert text in err and "Traceback" not in err


@pytest.mark.parametrize("command", ["plan", "mux"])
@pytest.mark.parametrize(
    ("arguments", "code", "remedy"),
    [
        (("nobody",), "MUX-302", "Check in RWS whether it still exists."),
        ((IDS["no-screen"],), "MUX-317", "No action is needed: a running muxer looks at the call again"),
        ((IDS["gaps"], "--agent=nobody"), "MUX-101", "The message names"),
    ],
)
def test_each_error_of_a_command_has_its_code_and_remedy(
    lab: Lab, config: Path, command: str, arguments: tuple[str, ...], code: str, remedy: str
) -> None:
    _, _, err = run_in_process(config, command, *arguments)
    assert f"{code} MetadataError: " in err and f"\nwhat to do: {remedy}" in err


def test_broken_media_are_named_and_the_rest_is_reported(lab: Lab, config: Path) -> None:
    [name] = (lab.site.media.folder / "screens").glob(f"agent1_{IDS['before']}*")
    content = name.read_bytes()
    name.write_bytes(content[: len(content) // 2])
    try:
        code, out, _ = run_in_process(config, "plan", IDS["before"])
    finally:
        name.write_bytes(content)
    assert code == 1
    assert re.search(rf"error +MUX-222 MediaIncomplete: {re.escape(name.name)}: .*\nwhat to do +\w", out)
    assert "stored as" in out
    assert temp_files(lab) == []


@pytest.mark.parametrize("kind", ["down", "denied"])
def test_without_rcs_the_plan_of_an_encrypted_call_is_an_error(lab: Lab, config: Path, kind: str, tmp_path: Path) -> None:
    text = config.read_text()
    other = tmp_path / "muxer.cfg"
    other.write_text(text.replace(lab.rcs_url, "http://127.0.0.1:9") if kind == "down" else text)
    lab.rcs_permission = kind != "denied"
    try:
        code, out, _ = run_in_process(other, "plan", IDS["encrypted"])
    finally:
        lab.rcs_permission = True
    assert code == 1
    expected = {"down": "error       MUX-201 ServiceUnavailable: ", "denied": "lacks the media decrypt permission"}
    assert expected[kind] in out


@pytest.mark.long
def test_on_a_terminal_the_timeline_has_colours_and_fits(lab: Lab, config: Path) -> None:
    code, written = run_on_terminal(72, config, "plan", IDS["before"], "--no-fetch")
    assert code == 0
    assert "\x1b[36m━" in written
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written).splitlines()
    drawn = [line for line in plain if re.search("[━▓]", line)]
    assert len(drawn) >= 3
    assert max(map(len, drawn)) <= 72
    code, written = run_on_terminal(72, config, "plan", IDS["before"])
    assert code == 0 and "▒" in written and "re-encoded" in written


def test_plan_next_to_a_running_muxer(make_lab: Make) -> None:
    lab = make_lab(encryption_group="missing")
    lab.add_case(Case.PLAIN)
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: muxed_entries(lab, IDS["plain"]), 60, "the muxed file", log)
        report = run_json_in_process(config, "plan", IDS["plain"])
        assert muxer.process.poll() is None
        assert muxer.stop() == 0
    [target] = report["targets"]
    assert target["done"] and target["method"] == "copy"
    assert temp_files(lab) == []


@pytest.mark.long
def test_a_full_disk_is_an_error(lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "muxer.cfg"
    sizes = lab.config_text(**{"processing.min_free_megabytes": "1"})
    config.write_text(sizes)
    id = IDS["gaps"]
    call = lab.store.get_call(id)
    assert call is not None
    huge = json.loads(json.dumps(call))
    huge["mediaFiles"][0]["size"] = str(1 << 45)
    lab.store.add_call(huge)
    try:
        code, out, _ = run_in_process(config, "plan", id)
    finally:
        lab.store.add_call(call)
    assert code == 1
    assert "LocalResourceError: it needs about" in out
