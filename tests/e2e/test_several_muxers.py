"""Several muxers on one contact center: shards with primaries and backups, and two nodes whose windows overlap."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from lab.build import AddedCall
from lab.lab import Lab
from lab.readers import read_frames
from muxer.polling.sharding import shard_of
from tests.support.calls import (
    SHORT_PLAN,
    add_short,
    log_messages,
    log_of,
    muxed_by,
    muxed_entries,
    stored_muxed,
    write_config,
)
from tests.support.daemon import MuxerProcess, run_muxer, wait_until

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
HOST_COUNT = 3
POLLS = {"processing__min_poll_interval": "0.02"}
NEWER = {"processing__window_past": "720", "processing__window_past_older_than": "0", **POLLS}
OLDER = {"processing__window_past": "1440", "processing__window_past_older_than": "5", **POLLS}


def test_command_line_overrides_file(make_lab: Make) -> None:
    lab = make_lab()
    sharding = {"processing__muxer_type": "primary", "processing__muxer_id": "0", "processing__total_muxers": "9"}
    config = write_config(lab, **sharding, advanced__call_recording_query_string="startTime=0")
    calls = add_short(lab, range(3))
    done = run_muxer(config, "--muxer-type=backup", "--muxer-id=2", "--total-muxers=4", seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0, done.err
    assert "runs as backup-2" in done.err
    assert sorted(muxed_by(log_of(config, "backup-2"))) == sorted(call.id for call in calls if shard_of(call.id, 4) == 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--muxer-id=3", "--total-muxers=3"), "[processing] muxer_id = '3': must be less than total_muxers (3)"),
        (("--muxer-id=1",), "[processing] muxer_id = '1': must be less than total_muxers (1)"),
        (("--muxer-id=0", "--total-muxers=0"), "[processing] total_muxers = '0'"),
        (("--muxer-id=0", "--muxer-type=standby"), "[processing] muxer_type = 'standby': must be one of: primary, backup"),
        (("--muxer-id=one",), "[processing] muxer_id = 'one'"),
        (("--muxer-id", "0", "--total-muxer=3"), "unrecognized arguments: --total-muxer=3"),
    ],
)
def test_wrong_combinations_are_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    config = tmp_path / "muxer.cfg"
    folders = f"[logfile]\nlogfile_path = {tmp_path}\n"
    config.write_text(f"[htcc]\nbase_uri = http://127.0.0.1:9\ncontact_center_id = cc\n{folders}")
    done = run_muxer(config, *arguments, seconds=TIMEOUT_SECONDS, cwd=tmp_path)
    assert done.process.returncode == 2
    assert message in done.err and "Traceback" not in done.err


def test_sharding_options_without_a_muxer_id_are_ignored_as_the_guide_says(make_lab: Make) -> None:
    lab = make_lab()
    config = write_config(lab, processing__total_muxers="0", advanced__call_recording_query_string="startTime=0")
    done = run_muxer(config, "--muxer-id=-1", "--muxer-type=backup", seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 0, done.err
    assert "runs as single" in done.err
    assert "total_muxers = '0'" in done.err and "muxer_type = 'backup': it is ignored" in done.err


def test_two_nodes_with_overlapping_windows_publish_each_file_once(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    newest = add_short(lab, [0], timedelta(minutes=2))
    both = add_short(lab, [1, 2], timedelta(minutes=30))
    oldest = add_short(lab, [3], timedelta(hours=13))
    first = write_config(lab, "first", **NEWER)
    second = write_config(lab, "second", **OLDER)
    calls = [*newest, *both, *oldest]
    with MuxerProcess(first) as one, MuxerProcess(second) as other:
        _wait_for_all(lab, calls, log_of(first))
        for log in (log_of(first), log_of(second)):
            _wait_for_poll(log)
        assert (one.stop(), other.stop()) == (0, 0)
    assert set(muxed_by(log_of(first))) <= {call.id for call in (*newest, *both)}
    assert set(muxed_by(log_of(second))) <= {call.id for call in (*both, *oldest)}
    _check_published_once(lab, calls, tmp_path)


@pytest.mark.long
def test_backup_takes_over_shard_of_killed_primary(make_lab: Make, tmp_path: Path) -> None:
    """Three hosts, each with a primary and a backup, as in the guide. The primary of host 1 leaves an unfinished upload of
    one recording, finishes another one and is killed with ``kill -9`` during its third."""
    lab = make_lab()
    share = add_short(lab, _serials_of_shard(1, 3), timedelta(minutes=30))
    others = add_short(lab, [*_serials_of_shard(0, 2), *_serials_of_shard(2, 2)], timedelta(minutes=30))
    others += add_short(lab, [_serials_of_shard(number, 3)[2] for number in (0, 2)], timedelta(hours=13))
    instances = {
        f"{kind}-{host}": _shard_options(kind, host) for kind in ("primary", "backup") for host in range(HOST_COUNT)
    }
    configs = {name: write_config(lab, name, **options) for name, options in instances.items()}
    logs = {name: log_of(config, name) for name, config in configs.items()}
    hanging = {"processing__min_poll_interval": "5", "processing__openssl": str(_write_hanging_openssl(tmp_path))}
    write_config(lab, "primary-1", **instances["primary-1"] | hanging)
    # The rename fails as often as it is retried.
    for method, times in (("MOVE", 4), ("DELETE", 1)):
        lab.store.fail_next("dav", method, "/part-", 507, times=times)
    with ExitStack() as stack:
        killed = stack.enter_context(MuxerProcess(configs["primary-1"]))
        wait_until(
            lambda: any("MOVE" in message for message in log_messages(logs["primary-1"])),
            TIMEOUT_SECONDS,
            "the failed upload",
        )
        running = [stack.enter_context(MuxerProcess(configs[f"primary-{host}"])) for host in (0, 2)]
        wait_until((tmp_path / "hangs").exists, TIMEOUT_SECONDS, "the third encryption", logs["primary-1"])
        running += [stack.enter_context(MuxerProcess(configs[f"backup-{host}"])) for host in range(HOST_COUNT)]
        wait_until(
            lambda: "poll done" in log_messages(logs["backup-0"]), TIMEOUT_SECONDS, "a poll of the backup", logs["backup-0"]
        )
        killed.process.kill()
        killed.process.wait()
        _wait_for_all(lab, [*share, *others], logs["backup-0"])
        assert [one.stop() for one in running] == [0] * len(running)
    assert len(_part_files(lab)) == 1
    write_config(lab, "primary-1", **instances["primary-1"])
    with MuxerProcess(configs["primary-1"]) as restarted:
        wait_until(lambda: not _part_files(lab), TIMEOUT_SECONDS, "the removal of the unfinished upload", logs["primary-1"])
        assert restarted.stop() == 0
    _check_published_once(lab, [*share, *others], tmp_path)
    done = {name: muxed_by(log) for name, log in logs.items()}
    assert sorted(one for ids in done.values() for one in ids) == sorted(call.id for call in (*share, *others))
    assert len(done["primary-1"]) == 1 and {*done["primary-1"], *done["backup-0"]} == {call.id for call in share}
    for host in range(HOST_COUNT):
        assert {shard_of(one, HOST_COUNT) for one in done[f"primary-{host}"]} <= {host}
        assert {shard_of(one, HOST_COUNT) for one in done[f"backup-{host}"]} == {(host + 1) % HOST_COUNT}


def _part_files(lab: Lab) -> list[str]:
    return [name for name in stored_muxed(lab) if name.startswith("part-")]


def _shard_options(kind: str, host: int) -> dict[str, str]:
    numbers = {"processing__muxer_id": str(host), "processing__total_muxers": str(HOST_COUNT)}
    window = NEWER if kind == "primary" else OLDER
    return {"processing__muxer_type": kind, "advanced__worker_threads": "1", **numbers, **window}


def _write_hanging_openssl(folder: Path) -> Path:
    """Write a program like openssl that creates the file ``hangs`` and hangs at the third encryption."""
    path, count = folder / "openssl", folder / "count"
    path.write_text(
        f"""#!/bin/sh
case "$*" in *-encrypt*)
    echo >> {count}
    if [ "$(wc -l < {count})" -ge 3 ]; then touch {folder}/hangs; exec sleep 600; fi
esac
exec openssl "$@"
"""
    )
    path.chmod(0o755)
    return path


def _wait_for_all(lab: Lab, calls: list[AddedCall], log: Path) -> None:
    wanted = {call.id for call in calls}
    wait_until(lambda: {one for one, _ in lab.store.label_posts} >= wanted, TIMEOUT_SECONDS, "all labels", log)


def _wait_for_poll(log: Path) -> None:
    polls = log_messages(log).count("poll done")
    wait_until(lambda: log_messages(log).count("poll done") > polls, TIMEOUT_SECONDS, "one more poll", log)


def _check_published_once(lab: Lab, calls: list[AddedCall], folder: Path) -> None:
    """Check that each call has one entry, one file and one label, and that the file is its own."""
    entries = {call.id: muxed_entries(lab, call.id) for call in calls}
    assert [len(found) for found in entries.values()] == [1] * len(calls)
    assert stored_muxed(lab) == sorted(found[0]["mediaId"] for found in entries.values())
    assert Counter(one for one, _ in lab.store.label_posts) == Counter(entries.keys())
    for call in calls:
        (entry,) = entries[call.id]
        assert entry["mediaId"].startswith(call.id)
        assert entry["parameters"]["muxed_mediaIds"] == [call.audio_id, call.screens[0].media_id]
        clear = folder / f"{call.id}.mp4"
        lab.decrypt_file(entry["pkcs7"], lab.site.media.folder / "screens" / entry["mediaId"], clear)
        frames = [frame for frame in read_frames(clear) if not frame.black]
        assert frames and {frame.agent for frame in frames} == {1}


def _serials_of_shard(number: int, count: int) -> list[int]:
    """Return the first serial numbers whose short calls fall on a shard."""
    found = (serial for serial in range(1000) if shard_of(SHORT_PLAN.recording_id(serial), HOST_COUNT) == number)
    return [next(found) for _ in range(count)]
