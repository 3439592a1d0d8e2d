"""Which recordings belong to an instance (the guide: Configuring Sharding)."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.config import load_config
from muxer.config.schema import ProcessingOptions
from muxer.polling.sharding import effective_shard, is_mine, shard_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def processing(tmp_path: Path) -> Callable[..., ProcessingOptions]:
    def load_processing(**sharding: object) -> ProcessingOptions:
        path = tmp_path / "muxer.cfg"
        path.write_text("[htcc]\nbase_uri = https://rws\ncontact_center_id = cc\n", encoding="utf-8")
        return load_config(path, {name: str(value) for name, value in sharding.items()}, {}).config.processing

    return load_processing


# These values must never change: all instances of a site, including other releases, must agree on them.
@pytest.mark.parametrize(
    ("recording_id", "total", "expected"),
    [("C1", 4, 3), ("00PCKGO7EK8PB2M4I5VS2LAES0000001", 4, 2), ("", 7, 1), ("Ünïcode-✓", 5, 2)],
)
def test_the_shard_of_an_id_is_the_same_in_every_release(recording_id: str, total: int, expected: int) -> None:
    assert shard_of(recording_id, total) == expected


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_the_shard_of_an_id_is_the_same_in_every_process(seed: str) -> None:
    code = "from muxer.polling.sharding import shard_of; print([shard_of(f'C{n}', 7) for n in range(50)])"
    environment = os.environ | {"PYTHONHASHSEED": seed}
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str([shard_of(f"C{number}", 7) for number in range(50)])


IDS: dict[str, Callable[[int], str]] = {
    "numbers": lambda number: f"{number:08d}",
    "uuids": lambda number: str(uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)),
}


@pytest.mark.parametrize("total", [2, 3, 4])
@pytest.mark.parametrize("ids", IDS)
def test_shards_are_uniform_within_2_percent_over_100_000_ids(total: int, ids: str) -> None:
    counted = Counter(shard_of(IDS[ids](number), total) for number in range(100_000))
    assert set(counted) == set(range(total))
    assert all(abs(count - 100_000 / total) <= 0.02 * 100_000 / total for count in counted.values())


def test_the_example_of_the_guide_2_of_4_works_as_3_in_backup(processing: Callable[..., ProcessingOptions]) -> None:
    assert effective_shard(processing(muxer_id=2, total_muxers=4, muxer_type="primary")) == 2
    assert effective_shard(processing(muxer_id=2, total_muxers=4, muxer_type="backup")) == 3


def test_the_last_backup_replaces_the_first_primary(processing: Callable[..., ProcessingOptions]) -> None:
    assert effective_shard(processing(muxer_id=3, total_muxers=4, muxer_type="backup")) == 0


def test_the_only_backup_replaces_the_only_primary(processing: Callable[..., ProcessingOptions]) -> None:
    assert effective_shard(processing(muxer_id=0, total_muxers=1, muxer_type="backup")) == 0


@pytest.mark.parametrize("muxer_id", [-1, -7, ""])
def test_a_negative_or_empty_muxer_id_selects_everything(
    processing: Callable[..., ProcessingOptions], muxer_id: object
) -> None:
    options = processing(muxer_id=muxer_id, total_muxers=3)
    assert effective_shard(options) is None
    assert all(is_mine(options, f"C{number}") for number in range(50))


@pytest.mark.parametrize("muxer_type", ["primary", "backup"])
def test_each_recording_is_taken_by_exactly_one_instance_of_a_type(
    processing: Callable[..., ProcessingOptions], muxer_type: str
) -> None:
    instances = [processing(muxer_id=number, total_muxers=5, muxer_type=muxer_type) for number in range(5)]
    for number in range(500):
        assert [is_mine(instance, f"C{number}") for instance in instances].count(True) == 1


def test_a_primary_and_a_backup_of_the_same_id_share_nothing(processing: Callable[..., ProcessingOptions]) -> None:
    primary, backup = (processing(muxer_id=1, total_muxers=3, muxer_type=kind) for kind in ("primary", "backup"))
    assert not [number for number in range(500) if is_mine(primary, f"C{number}") and is_mine(backup, f"C{number}")]


@given(st.text(), st.integers(1, 100))
def test_a_shard_is_within_the_number_of_shards(recording_id: str, total: int) -> None:
    assert 0 <= shard_of(recording_id, total) < total
