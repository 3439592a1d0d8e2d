"""The parsers with arbitrary input: they raise their own errors, or none.

Each target has a corpus in ``corpus/``: small files written by hand, or that once made a parser fail. All of them are run,
then mutations of them, then JSON of the forms that the parsers know. ``MUXER_FUZZ=100000`` asks for that number of each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fuzzing import SECRET, TARGETS

CORPUS = Path(__file__).with_name("corpus")
CORPUS_FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())
MAX_EXAMPLES = int(os.environ.get("MUXER_FUZZ", "120"))
SLOW_CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]
FUZZ_SETTINGS = settings(max_examples=MAX_EXAMPLES, deadline=None, database=None, suppress_health_check=SLOW_CHECKS)

NASTY_BYTES = [
    *(b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"9" * 400, b"-1", b"\n", b"\r\n", b"|", b"=", b"N/A", b"1/0"),
    *(b"1e999", b"../", b"%2e%2e", b"%00", b"\\ud800", b"\xed\xa0\x80", b"[", b"{", b'"', b"[[[[" * 500, b"nan", b"inf"),
    b"\xe2\x80\xae",
]


def fuzz_target(name: str, inputs: st.SearchStrategy[bytes]) -> None:
    """Run a target with the configured number of inputs."""

    def run_target(data: bytes) -> None:
        TARGETS[name](data)

    FUZZ_SETTINGS(given(inputs)(run_target))()


@st.composite
def mutated_files(draw: Any, name: str) -> bytes:
    """Return a file of a target's corpus with a few spans replaced, removed or duplicated."""
    data = bytearray(draw(st.sampled_from([path.read_bytes() for path in CORPUS_FILES if path.parent.name == name])))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 8)))
        data[begin:end] = draw(
            st.one_of(st.sampled_from(NASTY_BYTES), st.binary(max_size=8), st.just(bytes(data[begin:end]) * 2))
        )
    return bytes(data)


@pytest.mark.parametrize("path", CORPUS_FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_each_corpus_file(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {path.parent.name for path in CORPUS_FILES} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_the_corpus(name: str) -> None:
    fuzz_target(name, mutated_files(name))


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    fuzz_target(name, st.binary(max_size=200))


TEXTS = st.sampled_from(
    [
        *("", ".", "..", "../x", "a\0b", "\ud800", "x" * 10_000, "http://[::1", "http://dav/r/../x", "9" * 5000),
        *("audio/mp3", "video/mp4", "webDAV", "awsS3", "a.mp3", "s.mp4", "r1"),
        *("2024-01-02T10:00:00Z", "2024-01-02T10:01:00.000+0000", "9999-12-31T23:59:59Z"),
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.text(max_size=9))
KEYS = st.sampled_from(
    [
        *("id", "mediaFiles", "mediaId", "type", "startTime", "stopTime", "size", "region", "labels", "name", "parameters"),
        *("contact", "userName", "muxed_mediaIds", "originalMediaDescriptor", "mediaDescriptor", "storage", "path", "data"),
        *("storagePath", "bucket", "pkcs7", "mediaUri", "mediaPath", "statusCode", "statusMessage", "recordings", "paging"),
        *("next", "nextUri"),
    ]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=6)), max_leaves=25
)
DESCRIPTORS = st.fixed_dictionaries(
    {},
    optional={
        "storage": st.one_of(st.sampled_from(["webDAV", "awsS3"]), VALUES),
        "path": st.one_of(TEXTS, st.text(), VALUES),
        "data": st.one_of(st.fixed_dictionaries({}, optional={"storagePath": TEXTS, "bucket": TEXTS}), VALUES),
    },
)
MEDIA = st.fixed_dictionaries(
    {"mediaId": st.one_of(TEXTS, VALUES), "type": st.sampled_from(["audio/mp3", "video/mp4"])},
    optional={
        **dict.fromkeys(("startTime", "stopTime", "size", "pkcs7", "mediaUri"), st.one_of(TEXTS, VALUES)),
        "parameters": st.one_of(st.fixed_dictionaries({}, optional={"muxed_mediaIds": VALUES, "contact": VALUES}), VALUES),
        "originalMediaDescriptor": DESCRIPTORS,
    },
)
RECORDINGS = st.fixed_dictionaries(
    {"id": st.one_of(TEXTS, VALUES), "mediaFiles": st.one_of(st.lists(MEDIA, max_size=6), VALUES)},
    optional={"region": VALUES, "labels": VALUES},
)
JSON = {
    "recording": st.one_of(st.lists(RECORDINGS, min_size=2, max_size=2), VALUES),
    "descriptor": DESCRIPTORS,
    "pages": st.one_of(st.fixed_dictionaries({"recordings": VALUES, "paging": VALUES}), VALUES),
}


@pytest.mark.parametrize("name", JSON)
def test_json_of_known_forms(name: str) -> None:
    fuzz_target(name, JSON[name].map(lambda value: json.dumps(value).encode()))


@FUZZ_SETTINGS
@given(VALUES, st.sampled_from(["200", "204", "401", "404", "500", "503", "999"]), st.text(max_size=30))
def test_responses_of_any_status(body: object, status: str, header: str) -> None:
    TARGETS["answer"](f"{status} {header.splitlines()[0] if header.strip() else ''}\n".encode() + json.dumps(body).encode())


@FUZZ_SETTINGS
@given(st.sampled_from(["htcc", "rcs", "webdav", "s3"]), mutated_files("configuration"))
def test_messages_about_invalid_configuration_contain_no_password(section: str, rest: bytes) -> None:
    name = "secret_access_key" if section == "s3" else "password"
    TARGETS["configuration"](f"[{section}]\n{name} = {SECRET}\n  {SECRET}\n{name}:{SECRET}\n".encode() + rest)
