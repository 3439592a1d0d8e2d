"""Fixtures for all tests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from muxer.lab.lab import Lab
from muxer.lab.switches import Switches


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Return a function that starts a lab with the given switches; all of them are stopped at the end."""
    with ExitStack() as stack:
        count = iter(range(100))

        def make(**switches: object) -> Lab:
            return stack.enter_context(Lab(tmp_path / f"lab-{next(count)}", Switches(**switches)))  # type: ignore[arg-type]

        yield make


@pytest.fixture(scope="module")
def models_read_once() -> Iterator[None]:
    """Reading its models takes boto3 longer than most tests of a client."""
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
    """Let uploads go in parts of the least size that S3 allows."""
    monkeypatch.setattr("muxer.storage.s3.MULTIPART_BYTES", 5 * 1024 * 1024)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Return the path of a file of three small parts."""
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (48 * 1024) + b"the last part")
    return path
