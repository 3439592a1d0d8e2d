"""Fixtures for all tests."""

from __future__ import annotations

import functools
import gc
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from lab.keys import load_recipients
from lab.lab import Lab
from lab.switches import Switches
from tests.support.media import CachedMediaLab, MediaCache, shared_folder
from tests.support.rabbitmq import RabbitNode
from tests.support.requirements import missing_programs, report_missing
from tests.support.tls import HOST, self_signed
from tests.support.tools import select_ffmpeg

if TYPE_CHECKING:
    from tests.support.queues import VirtualHost

# Every run of the suite uses the same examples; a run that asks for more examples uses different ones each time.
settings.register_profile("steady", derandomize=True)
if "MUXER_FUZZ" not in os.environ:
    settings.load_profile("steady")


# Each test has one tier: `fast` runs in this process and needs no server, `servers` needs the programs and
# servers of the sites, `long` takes long and tests variants of the other tests.
TIERS = ("fast", "servers", "long")


def pytest_configure(config: pytest.Config) -> None:
    """Restore Ctrl-C, which a shell makes its background jobs ignore: the programs under test inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier: tests in tests/unit that use no lab are fast."""
    for item in items:
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            is_fast = "unit" in item.path.parts and not {"make_lab", "kept_lab", "rabbit"} & set(
                getattr(item, "fixturenames", ())
            )
            item.add_marker("fast" if is_fast else "servers")


def pytest_collection_finish() -> None:
    """Exempt the thousands of collected tests from garbage collections: each would look at all of them."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Select the ffmpeg of the test. Skip tests whose programs are missing; fail them in CI."""
    if sys.platform == "win32" and item.get_closest_marker("posix"):
        pytest.skip("is about POSIX")
    # Some variants need encoders that a static build lacks.
    select_ffmpeg(any(item.get_closest_marker(name) for name in ("machine_ffmpeg", "long")))
    if item.get_closest_marker("fast") is None and (missing := missing_programs(("ffmpeg", "ffprobe", "openssl"))):
        report_missing(missing[0])


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> MediaCache:
    """Return the cache of the media of this run."""
    return MediaCache(shared_folder(tmp_path_factory.getbasetemp()) / "media")


@pytest.fixture(scope="session")
def kept_lab(tmp_path_factory: pytest.TempPathFactory, shelf: MediaCache) -> type[Lab]:
    """Return a lab class that reuses the media and keys of other labs of this run."""
    CachedMediaLab.shelf, CachedMediaLab.keys = shelf, tmp_path_factory.mktemp("keys")
    load_recipients(CachedMediaLab.keys)
    return CachedMediaLab


@pytest.fixture
def make_lab(tmp_path: Path, kept_lab: type[Lab]) -> Iterator[Callable[..., Lab]]:
    """Return a function that starts a lab with the given switches; all labs are stopped at the end."""
    with ExitStack() as stack:
        count = iter(range(100))

        def create_lab(**switches: object) -> Lab:
            folder = tmp_path / f"lab-{next(count)}"
            return stack.enter_context(kept_lab(folder, Switches(**switches)))

        yield create_lab


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitNode]:
    """Return the running RabbitMQ node of this process; a test that stops or kills it need not restart it."""
    with RabbitNode(tmp_path_factory.mktemp("rabbit"), certificate=self_signed("broker", HOST)) as node:
        yield node


@pytest.fixture
def vhost(rabbit: RabbitNode) -> Iterator[VirtualHost]:
    """Return a separate virtual host for the test."""
    from tests.support.queues import VirtualHost

    rabbit.start()
    name, password = secrets.token_hex(4), secrets.token_hex(8)
    rabbit.add_vhost(name, name, password)
    yield VirtualHost(rabbit, name, password)
    rabbit.start()
    rabbit.remove_vhost(name, name)


@pytest.fixture(scope="session")
def models_read_once() -> Iterator[None]:
    """Load the models of boto3 once, because that takes longer than most tests of a client."""
    import botocore.session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


@pytest.fixture
def no_keys_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide this machine's own AWS configuration from boto3."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload in parts of the minimum size that S3 allows."""
    monkeypatch.setattr("muxer.storage.s3.MULTIPART_BYTES", 5 * 1024 * 1024)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return the path of a file of three small parts."""
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (48 * 1024) + b"the last part")
    return path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Let the tests that share a fixture of their module run in one worker."""
    from tests.support.schedule import ModuleScheduling

    return ModuleScheduling(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests have measured: the largest errors of video and audio, one line per case."""
    reports = [one for held in terminalreporter.stats.values() for one in held if isinstance(one, pytest.TestReport)]
    rows = [value for one in reports for name, value in one.user_properties if name == "worst error" and one.when == "call"]
    if not rows:
        return
    terminalreporter.section("worst errors, in milliseconds")
    terminalreporter.write_line(f"{'source':<40}{'video':>10}{'audio':>10}{'allowed':>10}")
    for source, video_error, audio_error, allowed in sorted(rows):  # type: ignore[misc, type-var]
        terminalreporter.write_line(f"{source:<40}{video_error:>10.1f}{audio_error:>10.1f}{allowed:>10.1f}")
