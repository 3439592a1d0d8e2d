"""Fuzz targets: each takes any bytes and may raise only the errors that it names."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from muxer.config import load_config
from muxer.config.query_string import encode_query, parse_version, repair_extra_query
from muxer.crypto import envelope
from muxer.errors import ConfigError, EncryptionError, MediaError, MetadataError, MuxerError
from muxer.gir import responses
from muxer.gir.models import CallRecording, ScreenRecording, format_time
from muxer.gir.paging import PageWalk
from muxer.gir.targets import select_targets
from muxer.media import limits
from muxer.media.analyze import probe
from muxer.media.analyze.copyable import read_copyable_audio, read_copyable_screen
from muxer.media.plan.cut import FrameIndex
from muxer.pipeline.disk_space import needed_bytes
from muxer.pipeline.job import needed_services
from muxer.storage.base import WEBDAV, parse_descriptor
from muxer.system.iso_time import parse_time

SECRET = "a-fuzzed-secret"
_FOLDER = tempfile.TemporaryDirectory(prefix="muxer-fuzz-")  # removed when the tests end
FOLDER = Path(_FOLDER.name)


@dataclass(frozen=True)
class FuzzTarget:
    """A parser: the function that takes bytes, and the errors that it may raise."""

    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()

    def __call__(self, data: bytes) -> None:
        """Run the parser; any other error is a defect."""
        with suppress(*self.errors):
            self.run(data)


def _parse_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def fuzz_recording(data: bytes) -> None:
    """Process the JSON of a call and of its screen recording as a poll does."""
    both = _parse_json(data)
    first, second = both if isinstance(both, list) and len(both) == 2 else (both, both)
    call, screen = CallRecording.from_json(first), ScreenRecording.from_json(second)
    chosen = select_targets(call, screen, delete_superseded=True, label=True)
    for target in chosen.targets:
        assert target.file_name.isascii() and target.file_name.isprintable() and len(target.file_name) < 120
        assert "/" not in target.file_name and not target.file_name.startswith((".", "-"))
        needed_bytes(media.stated_size for media in (target.audio, *target.screens))
        needed_services(target)
        "".join((target.agent, target.region, *target.source_ids, *chosen.problems)).encode()


def fuzz_descriptor(data: bytes) -> None:
    """Find the location in a media descriptor."""
    content = _parse_json(data)
    location = parse_descriptor(content if isinstance(content, dict) else {})
    assert parse_descriptor(location.media_descriptor).name == location.name
    if location.storage == WEBDAV:
        assert location.url.isascii() and location.url.startswith(("http://", "https://"))
        assert not {".", ".."} & set(location.url.split("/"))


def fuzz_response(data: bytes) -> None:
    """Read a response of RWS: a line with status and headers, then the body."""
    head, _, body = data.partition(b"\n")
    status, _, after = head.decode("latin-1").partition(" ")
    headers = {"Retry-After": after, "Content-Type": after}
    given = responses.HttpResponse(
        "RWS GET /", int(status) if status in ("401", "404", "429", "500", "503") else 200, headers, body
    )
    wait = responses.retry_after(headers)
    assert wait is None or wait >= 0
    responses.parse_response(given)


def fuzz_pages(data: bytes) -> None:
    """Read pages that all have the same content."""
    content = _parse_json(data)
    walked = PageWalk(lambda _: content if isinstance(content, dict) else {}, "first")
    assert sum(1 for _ in walked) <= 3


def fuzz_time(data: bytes) -> None:
    """Read a time and format the result."""
    read = parse_time(data.decode(errors="replace"))
    assert read is None or (read.tzinfo is UTC and parse_time(format_time(read)) is not None)


def fuzz_query(data: bytes) -> None:
    """Encode a query of the configuration, and read a version."""
    text = data.decode(errors="replace")
    encoded = encode_query(repair_extra_query(text))
    assert encoded.isascii() and not {" ", "\n", "#", "?", "\0"} & set(encoded)
    parse_version(text)


def fuzz_cms(data: bytes) -> None:
    """Split the output of openssl."""
    pem = envelope.split_envelope(io.BytesIO(data), FOLDER / "ciphertext")
    assert pem.startswith("-----BEGIN PKCS7-----")
    assert (FOLDER / "ciphertext").stat().st_size <= len(data)


def fuzz_ffprobe(data: bytes) -> None:
    """Read the output of ffprobe and calculate with it."""
    found = probe.parse_ffprobe(FOLDER / "x", io.BytesIO(data))
    if found.video is not None:
        limits.check_frame_size(*found.video.display_size)
        assert found.video.frame_us > 0
        assert len(FrameIndex(found.video).shown) == len(found.video.packets.pts)
        assert isinstance(found.video.length_us, int)
    if found.audio is not None:
        limits.check_length(found.audio.length_us)


def fuzz_mp4(data: bytes) -> None:
    """Read an MP4 file, as a screen file and as audio."""
    (FOLDER / "x.mp4").write_bytes(data)
    read_copyable_screen(FOLDER / "x.mp4")
    sound = read_copyable_audio(FOLDER / "x.mp4")
    if sound is not None:
        limits.check_length(sound.length_us)


def fuzz_configuration(data: bytes) -> None:
    """Load a configuration; its messages contain no password."""
    (path := FOLDER / "muxer.cfg").write_bytes(data)
    try:
        messages = [*load_config(path, {}, {}).warnings]
    except ConfigError as error:
        messages = [str(error), *map(str, error.problems), *error.notes]
    assert SECRET not in "".join(messages)


TARGETS = {
    "recording": FuzzTarget(fuzz_recording, (MetadataError,)),
    "descriptor": FuzzTarget(fuzz_descriptor, (MetadataError,)),
    "answer": FuzzTarget(fuzz_response, (MuxerError,)),
    "pages": FuzzTarget(fuzz_pages),
    "moment": FuzzTarget(fuzz_time),
    "query": FuzzTarget(fuzz_query),
    "cms": FuzzTarget(fuzz_cms, (EncryptionError,)),
    "ffprobe": FuzzTarget(fuzz_ffprobe, (MediaError,)),
    "mp4": FuzzTarget(fuzz_mp4, (MediaError,)),
    "configuration": FuzzTarget(fuzz_configuration),
}
