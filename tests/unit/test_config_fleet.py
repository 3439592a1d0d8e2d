"""The section [fleet]: broker addresses, contradictory or missing options, and passwords that are not shown."""

from __future__ import annotations

from importlib import util
from pathlib import Path

import pytest

from muxer.config import LoadedConfig, fleet_options, load_config
from muxer.config.fleet_options import BrokerNode, parse_nodes, passwords_of
from muxer.errors import ConfigError
from muxer.system.masking import Mask

REQUIRED = "[htcc]\nbase_uri = https://rws:8081\ncontact_center_id = c\ntrusted_ca = true\n"
URL = "amqps://mux%40er:p%2Fss%20word@rmq1/gir"


def load_fleet(folder: Path, text: str, **environ: str) -> LoadedConfig:
    path = folder / "muxer.cfg"
    path.write_text(f"{REQUIRED}[fleet]\n{text}")
    return load_config(path, {}, environ)


@pytest.mark.parametrize(
    ("url", "node"),
    [
        (URL, BrokerNode("rmq1", 5671, True, "mux@er", "p/ss word", "gir")),
        ("amqp://rmq", BrokerNode("rmq", 5672, False, "guest", "guest", "/")),
        ("amqp://rmq:99/", BrokerNode("rmq", 99, False, "guest", "guest", "/")),
        ("amqp://u:p@[::1]:5/%2F", BrokerNode("::1", 5, False, "u", "p", "/")),
        ("amqp://u:p@h/a%2Fb", BrokerNode("h", 5672, False, "u", "p", "a/b")),
    ],
)
def test_an_address_names_a_node(url: str, node: BrokerNode) -> None:
    assert parse_nodes(url) == (node,)


def test_a_cluster_has_several_addresses(tmp_path: Path) -> None:
    config = load_fleet(tmp_path, f"mode = broker\nbroker_url = {URL}, amqps://u:other-secret@rmq2/gir\n").config
    assert [node.host for node in parse_nodes(config.fleet.broker_url)] == ["rmq1", "rmq2"]
    assert {"p/ss word", "p%2Fss%20word", "other-secret"} <= set(config.secret_values)
    assert "other-secret" not in repr(config) and "other-secret" not in Mask(config.secret_values)("x other-secret x")


@pytest.mark.parametrize(
    "url",
    [
        "http://u:secret-word@h",
        "amqp:",
        "amqp://",
        "amqp://u:secret-word@h:port",
        "amqp://u:secret-word@h:99999",
        "amqp://u:sec/ret-word@h",
        "amqp://u:secret?word@h",
        "amqp://u:secret#word@h",
        "amqp://h/a/b",
        "secret-word",
    ],
)
def test_an_invalid_address_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_fleet(tmp_path, f"broker_url = {url}\n")
    [problem] = caught.value.problems
    assert problem.where == "[fleet] broker_url"
    assert "word" not in str(problem).replace("password", "")


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    config = load_fleet(
        tmp_path, "mode = broker\nbroker_url = amqp://a\n", FLEET_BROKER_URL="amqps://u:from-environment@b"
    ).config
    assert config.fleet.broker_url == "amqps://u:from-environment@b" and "from-environment" in config.secret_values


def test_a_broker_needs_an_address(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_fleet(tmp_path, "mode = broker\n")
    assert [str(problem) for problem in caught.value.problems] == ["[fleet] broker_url: is required with mode = broker"]
    assert not load_fleet(tmp_path, "mode = local\n").config.is_fleet


def test_a_broker_needs_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = util.find_spec
    monkeypatch.setattr(fleet_options, "find_spec", lambda name: None if name == "pika" else found(name))
    with pytest.raises(ConfigError) as caught:
        load_fleet(tmp_path, "mode = broker\nbroker_url = amqp://h\n")
    [problem] = caught.value.problems
    assert problem.where == "[fleet] mode = 'broker'" and "pika missing" in problem.what
    assert "recording-muxer[fleet]" in problem.what and "--fleet" in problem.what


@pytest.mark.posix
@pytest.mark.parametrize("queue", ["", "a b", "amq.x", "x" * 101, "ü", "a/b"])
def test_a_queue_has_a_plain_name(tmp_path: Path, queue: str) -> None:
    if not queue:
        assert load_fleet(tmp_path, "queue =\n").config.fleet.queue == "recording-muxer"
        return
    with pytest.raises(ConfigError, match=r"\[fleet\] queue"):
        load_fleet(tmp_path, f"queue = {queue}\n")


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("broker_url = amqp://rmq\n", "unencrypted"),
        ("broker_url = amqps://rmq\ntrusted_ca = false\n", "trusted_ca = false"),
        ("broker_url = amqps://rmq\n", ""),
        ("broker_url = amqp://localhost\n", ""),
    ],
)
def test_unsafe_options_are_warnings(tmp_path: Path, text: str, warned: str) -> None:
    found = [warning for warning in load_fleet(tmp_path, f"mode = broker\n{text}").warnings if "[fleet]" in warning]
    assert bool(found) is bool(warned) and all(warned in one for one in found)
    assert not [item for item in load_fleet(tmp_path, text).warnings if "[fleet]" in item]


def test_passwords_are_masked_both_decoded_and_as_written() -> None:
    assert passwords_of(URL) == ("p/ss word", "p%2Fss%20word")
    assert passwords_of("amqp://h") == passwords_of("") == ()
