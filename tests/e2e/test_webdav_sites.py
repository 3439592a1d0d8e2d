"""Real runs against WebDAV servers as sites set them up: what is published, what is logged, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from lab.build import AddedCall
from lab.dav import ExternalDav
from lab.lab import Lab
from lab.switches import Switches
from tests.support.apache import DIGEST, GENESYS_FOLDER, READ_ONLY, run_apache
from tests.support.calls import add_short, log_of, muxed_entries, stored_muxed, write_config
from tests.support.daemon import FAST_RETRY, MuxerProcess, log_lines, run_muxer, wait_until
from tests.support.lighttpd import run_lighttpd
from tests.support.nginx import run_nginx, run_tls_proxy
from tests.support.tiers import spread_variants

TIMEOUT_SECONDS = 60
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}
Serve = Callable[[ExitStack], ExternalDav]


def start_proxied(stack: ExitStack) -> ExternalDav:
    return stack.enter_context(run_tls_proxy(stack.enter_context(run_apache())))


def start_alone(server: partial) -> Serve:
    return lambda stack: stack.enter_context(server())


ACCEPTED: dict[str, Serve] = {
    "Apache of the guide": start_alone(partial(run_apache, GENESYS_FOLDER)),
    "nginx": start_alone(partial(run_nginx)),
    "lighttpd": start_alone(partial(run_lighttpd)),
    "Digest": start_alone(partial(run_apache, DIGEST, modules=("auth_digest",))),
    "a proxy that ends TLS": start_proxied,
}


@dataclass
class WebdavLab:
    """A lab on a WebDAV server, with two calls."""

    lab: Lab
    calls: list[AddedCall]

    def logged_errors(self, config: Path) -> list[str]:
        return [line["message"] for line in log_lines(log_of(config)) if line["level"] in ("error", "critical")]


@pytest.fixture
def make_site(kept_lab: type[Lab], tmp_path: Path) -> Iterator[Callable[[Serve], WebdavLab]]:
    with ExitStack() as stack:

        def create_site(serve: Serve) -> WebdavLab:
            switches = Switches(encryption_group="empty")
            lab = stack.enter_context(kept_lab(tmp_path / "lab", switches, dav=serve(stack)))
            return WebdavLab(lab, add_short(lab, range(2)))

        yield create_site


@pytest.mark.parametrize("name", spread_variants(ACCEPTED, 2))
def test_recordings_are_published(make_site: Callable[[Serve], WebdavLab], name: str) -> None:
    site = make_site(ACCEPTED[name])
    config = write_config(site.lab, **MIGRATION)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0 and "2 files muxed" in done.out, done.out
    published = sorted(entry["mediaId"] for call in site.calls for entry in muxed_entries(site.lab, call.id))
    assert len(published) == 2 and stored_muxed(site.lab) == published
    assert site.logged_errors(config) == []


@dataclass(frozen=True)
class RefusingServer:
    """A server that refuses, and the text that the operator must read."""

    serve: Serve
    text: str


REFUSALS = {
    "a limit": RefusingServer(
        start_alone(partial(run_nginx, "client_max_body_size 10k;")), "raise client_max_body_size in nginx"
    ),
    "read-only": RefusingServer(
        start_alone(partial(run_apache, more=READ_ONLY)), "the password is right, but the account may not write there"
    ),
}


@pytest.mark.parametrize("name", spread_variants(REFUSALS, 2))
def test_refusal_is_named_and_never_set_aside(make_site: Callable[[Serve], WebdavLab], name: str) -> None:
    site = make_site(REFUSALS[name].serve)
    config = write_config(site.lab, processing__min_poll_interval="0.01")
    log = log_of(config)

    def logged_failures() -> list[dict]:
        return [line for line in log_lines(log) if REFUSALS[name].text in line["message"]]

    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(lambda: len(logged_failures()) >= 8, TIMEOUT_SECONDS, "four attempts of each", log)
        assert muxer.stop() == 0
    assert not [line for line in log_lines(log) if "set aside" in line["message"]]
    assert not [message for message in site.logged_errors(config) if "is unavailable" in message]
    assert not any(muxed_entries(site.lab, call.id) for call in site.calls) and stored_muxed(site.lab) == []


@pytest.mark.parametrize("name", spread_variants(REFUSALS, 2))
def test_refused_migration_reports_cause_and_exits_with_4(make_site: Callable[[Serve], WebdavLab], name: str) -> None:
    site = make_site(REFUSALS[name].serve)
    config = write_config(site.lab, **MIGRATION)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 4 and "2 failed" in done.out, done.out
    assert any(REFUSALS[name].text in message for message in site.logged_errors(config))
    assert not any(muxed_entries(site.lab, call.id) for call in site.calls) and stored_muxed(site.lab) == []
