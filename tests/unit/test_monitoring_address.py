"""The section [monitoring]: which addresses may be opened, for whom, and the messages when one is refused."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from muxer.checks.checklist import CheckStatus, run_checks
from muxer.checks.monitoring import MonitoringChecks
from muxer.config import LoadedConfig, inspect_config, load_config
from muxer.config.monitoring_address import resolve_address
from muxer.errors import ConfigError
from tests.support.monitoring import create_certificate
from tests.support.tls import self_signed

SAFE_OPTIONS = {"http_port": "9477", "username": "watcher", "password": "open sesame"}


def load_options(folder: Path, environ: dict[str, str] | None = None, **options: object) -> LoadedConfig:
    path = folder / "muxer.cfg"
    lines = "".join(f"{name} = {value}\n" for name, value in options.items())
    path.write_text(f"[htcc]\nbase_uri = http://rws\ncontact_center_id = 1\n[monitoring]\n{lines}")
    return load_config(path, {}, environ or {})


def refusal_text(folder: Path, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_options(folder, **options)
    return "\n".join(map(str, caught.value.problems))


def test_nothing_listens_unless_configured(tmp_path: Path) -> None:
    monitoring = load_options(tmp_path).config.monitoring
    assert (monitoring.http_address, monitoring.http_port, monitoring.certificate) == ("127.0.0.1", 0, None)
    assert load_options(tmp_path, http_address="0.0.0.0").config.monitoring.http_port == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_this_machine_has_access_without_a_password(tmp_path: Path, address: str) -> None:
    assert load_options(tmp_path, http_address=address, http_port="9477").config.monitoring.http_port == 9477
    assert resolve_address(address).loopback


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "[::]", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "muxer.test"])
def test_other_machines_need_https_and_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (item, 0)) for item in ("127.0.0.1", "192.0.2.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    certificate, key, _ = create_certificate(tmp_path)
    safe = {**SAFE_OPTIONS, "http_address": address, "certificate": certificate, "key": key}
    assert load_options(tmp_path, **safe).config.monitoring.username == "watcher"
    for missing in ("username", "password", "certificate", "key"):
        refusal = refusal_text(tmp_path, **{name: value for name, value in safe.items() if name != missing})
        assert f"[monitoring] http_address = '{address}'" in refusal and f"set {missing} in [monitoring]" in refusal
    refusal = refusal_text(tmp_path, http_address=address, http_port="9477")
    assert "set username, password, certificate, key in [monitoring], or use 127.0.0.1" in refusal


@pytest.mark.parametrize(("number", "temporary"), [(socket.EAI_AGAIN, True), (socket.EAI_NONAME, False)])
def test_a_name_server_that_does_not_respond_may_respond_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, temporary: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(number, "no look-up")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConfigError) as caught:
        load_options(tmp_path, http_address="muxer.test", http_port="9477")
    assert caught.value.temporary is temporary
    config = inspect_config(tmp_path / "muxer.cfg", {}, {}).config
    (finding,) = run_checks(MonitoringChecks(config).create_checks(), [])
    assert finding.status is CheckStatus.FAILED and "[monitoring] http_address = 'muxer.test'" in finding.found
    assert "no look-up" in finding.found and "report this text" not in finding.advice


def test_a_name_of_this_machine_only_is_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    assert load_options(tmp_path, http_address="thishost", http_port="9477")


def test_an_unknown_name_is_a_problem(tmp_path: Path) -> None:
    refusal = refusal_text(tmp_path, http_address="no such host.invalid", http_port="9477")
    assert "http_address = 'no such host.invalid'" in refusal and "must be an address of this machine" in refusal


@pytest.mark.parametrize("given", ["username", "password", "certificate", "key"])
def test_one_option_of_a_pair_is_refused(tmp_path: Path, given: str) -> None:
    certificate, key, _ = create_certificate(tmp_path)
    values = {"username": "watcher", "password": "open sesame", "certificate": certificate, "key": key}
    assert f"is required, because {given} is set" in refusal_text(tmp_path, http_port="9477", **{given: values[given]})


def test_a_certificate_that_cannot_be_used_names_the_option(tmp_path: Path) -> None:
    certificate, key, _ = create_certificate(tmp_path)
    other = tmp_path / "other.key"
    other.write_bytes(self_signed("other").key_pem)
    port = {"http_port": "9477"}
    refusal = refusal_text(tmp_path, **port, certificate=certificate, key=other)
    assert f"[monitoring] key = '{other}': is not the key of [monitoring] certificate" in refusal
    refusal = refusal_text(tmp_path, **port, certificate=tmp_path / "none.pem", key=key)
    assert "[monitoring] certificate" in refusal and "must be the path of a PEM file" in refusal
    assert "[monitoring] key" in refusal_text(tmp_path, **port, certificate=certificate, key=tmp_path / "none.key")
    assert "contains no certificate" in refusal_text(tmp_path, **port, certificate=key, key=key)
    assert "cannot be used with the certificate" in refusal_text(tmp_path, **port, certificate=certificate, key=certificate)


def test_a_certificate_that_has_expired_is_only_a_warning(tmp_path: Path) -> None:
    certificate, key, _ = create_certificate(tmp_path, end=-1)
    [warning] = [item for item in load_options(tmp_path, certificate=certificate, key=key).warnings if "expired" in item]
    assert warning.startswith("[monitoring] certificate: it expired on ")


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_malformed_port_is_a_problem(tmp_path: Path, port: str) -> None:
    refusal = refusal_text(tmp_path, http_port=port)
    assert f"[monitoring] http_port = '{port}': must be a whole number >= 0 and at most 65535" in refusal


def test_the_password_is_read_from_the_environment_and_shown_nowhere(tmp_path: Path) -> None:
    config = load_options(tmp_path, {"MONITORING_PASSWORD": "from outside"}, username="watcher").config
    assert config.monitoring.password == "from outside"
    assert "from outside" not in repr(config)
    assert {"from outside", "d2F0Y2hlcjpmcm9tIG91dHNpZGU="} <= set(config.secret_values)
