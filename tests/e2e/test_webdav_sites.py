"""Real runs against WebDAV servers as sites set them up: what is published, what the operator reads, and the exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from tests.support.apache import DIGEST, GENESYS_FOLDER, READ_ONLY, apache
from tests.support.calls import add_short, configure, log_of, muxed, stored_muxed
from tests.support.daemon import IMPATIENT, Muxer, log_lines, run, wait_until
from tests.support.lighttpd import lighttpd
from tests.support.nginx import nginx, tls_proxy

from muxer.lab.build import AddedCall
from muxer.lab.dav import ExternalDav
from muxer.lab.lab import Lab
from muxer.lab.switches import Switches

SECONDS = 60
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}
Serve = Callable[[ExitStack], ExternalDav]


def proxied(stack: ExitStack) -> ExternalDav:
    return stack.enter_context(tls_proxy(stack.enter_context(apache())))


def alone(server: partial) -> Serve:
    return lambda stack: stack.enter_context(server())


GOOD: dict[str, Serve] = {
    "Apache of the guide": alone(partial(apache, GENESYS_FOLDER)),
    "nginx": alone(partial(nginx)),
    "lighttpd": alone(partial(lighttpd)),
    "Digest": alone(partial(apache, DIGEST, modules=("auth_digest",))),
    "a proxy that ends TLS": proxied,
}


@dataclass
class Site:
    """A lab on a WebDAV server, with two calls."""

    lab: Lab
    calls: list[AddedCall]

    def errors(self, config: Path) -> list[str]:
        return [line["message"] for line in log_lines(log_of(config)) if line["level"] in ("error", "critical")]


@pytest.fixture
def make_site(kept_lab: type[Lab], tmp_path: Path) -> Iterator[Callable[[Serve], Site]]:
    with ExitStack() as stack:

        def make(serve: Serve) -> Site:
            switches = Switches(encryption_group="empty")
            lab = stack.enter_context(kept_lab(tmp_path / "lab", switches, dav=serve(stack)))
            return Site(lab, add_short(lab, range(2)))

        yield make


@pytest.mark.parametrize("name", GOOD)
def test_recordings_are_published(make_site: Callable[[Serve], Site], name: str) -> None:
    site = make_site(GOOD[name])
    config = configure(site.lab, **MIGRATION)
    done = run(config, seconds=SECONDS, **IMPATIENT)
    assert done.process.returncode == 0 and "2 files muxed" in done.out, done.out
    published = sorted(entry["mediaId"] for call in site.calls for entry in muxed(site.lab, call.id))
    assert len(published) == 2 and stored_muxed(site.lab) == published
    assert site.errors(config) == []


@dataclass(frozen=True)
class Refusal:
    """A server that refuses, and the text that the operator must read."""

    serve: Serve
    text: str


REFUSALS = {
    "a limit": Refusal(alone(partial(nginx, "client_max_body_size 10k;")), "raise client_max_body_size in nginx"),
    "read-only": Refusal(
        alone(partial(apache, more=READ_ONLY)), "the password is right, but the account may not write there"
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused_is_named_and_never_set_aside(make_site: Callable[[Serve], Site], name: str) -> None:
    site = make_site(REFUSALS[name].serve)
    config = configure(site.lab, processing__min_poll_interval="0.01")
    log = log_of(config)

    def failures() -> list[dict]:
        return [line for line in log_lines(log) if REFUSALS[name].text in line["message"]]

    with Muxer(config, **IMPATIENT) as muxer:
        wait_until(lambda: len(failures()) >= 8, SECONDS, "four attempts of each", log)
        assert muxer.stop() == 0
    assert not [line for line in log_lines(log) if "set aside" in line["message"]]
    assert not [message for message in site.errors(config) if "is out" in message]
    assert not any(muxed(site.lab, call.id) for call in site.calls) and stored_muxed(site.lab) == []


@pytest.mark.parametrize("name", REFUSALS)
def test_a_migration_that_is_refused_says_why_and_ends_with_4(make_site: Callable[[Serve], Site], name: str) -> None:
    site = make_site(REFUSALS[name].serve)
    config = configure(site.lab, **MIGRATION)
    done = run(config, seconds=SECONDS, **IMPATIENT)
    assert done.process.returncode == 4 and "2 failed" in done.out, done.out
    assert any(REFUSALS[name].text in message for message in site.errors(config))
    assert not any(muxed(site.lab, call.id) for call in site.calls) and stored_muxed(site.lab) == []
