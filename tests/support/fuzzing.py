"""What is fuzzed: each target takes any bytes, and may raise only the errors that it names."""

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

from muxer.config import load
from muxer.crypto import envelope
from muxer.disk import needed
from muxer.errors import ConfigError, EncryptionError, MediaError, MetadataError, MuxerError
from muxer.gir import answers
from muxer.gir.models import CallRecording, ScreenRecording, format_time, parse_time
from muxer.gir.paging import Pages
from muxer.gir.query import encode_query, parse_version, repair_extra_query
from muxer.job import services_of
from muxer.media import limits, probe
from muxer.media.cut import Index
from muxer.media.plain import read_screen, read_sound
from muxer.selection import select
from muxer.storage.base import WEBDAV, place_of

SECRET = "a-fuzzed-secret"
_FOLDER = tempfile.TemporaryDirectory(prefix="muxer-fuzz-")  # removed when the tests end
FOLDER = Path(_FOLDER.name)


@dataclass(frozen=True)
class Target:
    """A parser: how it is called with bytes, and what it may raise."""

    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...] = ()

    def __call__(self, data: bytes) -> None:
        """Run it; whatever else is raised is a defect."""
        with suppress(*self.errors):
            self.run(data)


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def recording(data: bytes) -> None:
    """Do what a poll does with the JSON of a call and of its screen recording."""
    both = _json(data)
    first, second = both if isinstance(both, list) and len(both) == 2 else (both, both)
    call, screen = CallRecording.read(first), ScreenRecording.read(second)
    chosen = select(call, screen, delete_superseded=True, label=True)
    for target in chosen.targets:
        assert target.name.isascii() and target.name.isprintable() and len(target.name) < 120
        assert "/" not in target.name and not target.name.startswith((".", "-"))
        needed(media.size for media in (target.audio, *target.screens))
        services_of(target)
        "".join((target.agent, target.region, *target.sources, *chosen.problems)).encode()


def descriptor(data: bytes) -> None:
    """Find the place that a media descriptor names."""
    content = _json(data)
    place = place_of(content if isinstance(content, dict) else {})
    assert place_of(place.descriptor).name == place.name
    if place.storage == WEBDAV:
        assert place.url.isascii() and place.url.startswith(("http://", "https://"))
        assert not {".", ".."} & set(place.url.split("/"))


def answer(data: bytes) -> None:
    """Read an answer of RWS: a line of status and headers, then the body."""
    head, _, body = data.partition(b"\n")
    status, _, after = head.decode("latin-1").partition(" ")
    headers = {"Retry-After": after, "Content-Type": after}
    given = answers.Answer("RWS GET /", int(status) if status in ("401", "404", "429", "500", "503") else 200, headers, body)
    wait = answers.retry_after(headers)
    assert wait is None or wait >= 0
    answers.envelope(given)


def pages(data: bytes) -> None:
    """Walk through pages that all have the same content."""
    content = _json(data)
    walked = Pages(lambda _: content if isinstance(content, dict) else {}, "first")
    assert sum(1 for _ in walked) <= 3


def moment(data: bytes) -> None:
    """Read a time; what is read can be written."""
    read = parse_time(data.decode(errors="replace"))
    assert read is None or (read.tzinfo is UTC and parse_time(format_time(read)) is not None)


def query(data: bytes) -> None:
    """Encode a query of the configuration, and read a version."""
    text = data.decode(errors="replace")
    encoded = encode_query(repair_extra_query(text))
    assert encoded.isascii() and not {" ", "\n", "#", "?", "\0"} & set(encoded)
    parse_version(text)


def cms(data: bytes) -> None:
    """Split what openssl prints."""
    pem = envelope.split(io.BytesIO(data), FOLDER / "ciphertext")
    assert pem.startswith("-----BEGIN PKCS7-----")
    assert (FOLDER / "ciphertext").stat().st_size <= len(data)


def ffprobe(data: bytes) -> None:
    """Read what ffprobe prints, and reckon with it."""
    found = probe.read_printed(FOLDER / "x", io.BytesIO(data))
    if found.video is not None:
        limits.check_picture(*found.video.size)
        assert found.video.frame_us > 0
        assert len(Index(found.video).shown) == len(found.video.packets.pts)
        assert isinstance(found.video.length_us, int)
    if found.audio is not None:
        limits.check_length(found.audio.length_us)


def mp4(data: bytes) -> None:
    """Read an MP4 file, as a screen file and as sound."""
    (FOLDER / "x.mp4").write_bytes(data)
    read_screen(FOLDER / "x.mp4")
    sound = read_sound(FOLDER / "x.mp4")
    if sound is not None:
        limits.check_length(sound.length_us)


def configuration(data: bytes) -> None:
    """Load a configuration; what is said of it holds no password."""
    (path := FOLDER / "muxer.cfg").write_bytes(data)
    try:
        said = [*load(path, {}, {}).warnings]
    except ConfigError as error:
        said = [str(error), *map(str, error.problems), *error.notes]
    assert SECRET not in "".join(said)


TARGETS = {
    "recording": Target(recording, (MetadataError,)),
    "descriptor": Target(descriptor, (MetadataError,)),
    "answer": Target(answer, (MuxerError,)),
    "pages": Target(pages),
    "moment": Target(moment),
    "query": Target(query),
    "cms": Target(cms, (EncryptionError,)),
    "ffprobe": Target(ffprobe, (MediaError,)),
    "mp4": Target(mp4, (MediaError,)),
    "configuration": Target(configuration),
}
