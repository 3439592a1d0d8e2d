"""Names and telephone numbers of people become pseudonyms, in whatever form a text contains them; other texts stay."""

from __future__ import annotations

import html
import json
import re
import time
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest

from muxer.monitoring.person_mask import PersonMask, decode_text

NAME, PHONE = "Zoltán Quästenhuber", "+49 89 55501234"
FORMS: dict[str, Callable[[str], str]] = {
    "unchanged": str,
    "upper case": str.upper,
    "URL": lambda text: quote(text, safe=""),
    "query": quote_plus,
    "URL in a URL": lambda text: quote(quote(text, safe=""), safe=""),
    "each byte in a URL": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "Latin-1 in a URL": lambda text: quote(text.encode("latin-1")),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "HTML": lambda text: html.escape(text).replace("ä", "&auml;").replace("+", "&#43;"),
    "file name": lambda text: text.replace(" ", "_"),
    "after an escaped line break": lambda text: json.dumps(f"\n{text}"),
}
# Long numbers that are no telephone numbers.
KEPT = (
    "2026-11-25T01:23:03.123Z",
    "2026-11-25 01:40:02 UTC",
    "10.120.130.140:8081",
    "bytes=123456789 seconds=0.123456789",
    "received 123456789 bytes of 987654321 bytes",
    "12345678-1234-1234-1234-123456789012",
    "00RDLE8VTGA7L3C4SLDL4B5AES000001",
    "screen_20261125_012303.mp4",
    "process 4194303",
    "certifi 2026.5.9, Copyright 2000-2026",
    "C1_3f2a9c3f12345678912a_muxed.mp4",
)


@pytest.fixture
def mask() -> PersonMask:
    people = PersonMask(unmasked=["ops"])
    people.add_name(NAME)
    return people


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", [NAME, PHONE])
@pytest.mark.parametrize("around", ["{}", "user={}&more=1", "'{}'", "/rec/{}/x.mp4", "x_{}_20261125_012303.mp4"])
def test_a_name_and_a_number_are_replaced_in_every_form(mask: PersonMask, form: str, text: str, around: str) -> None:
    masked = mask.mask_text(around.format(FORMS[form](text)))
    assert not re.search("zolt|quästen|qu.stenhuber|55501234|5550", decode_text(masked).lower()), masked
    assert re.search(r"(person|number)-[0-9a-f]{8}", masked)


@pytest.mark.parametrize(
    "number", ["+498955501234", "0049 89 55501234", "(089) 555-01234", "089/55501234", "555.0123.4567", "sip:55501234@pbx"]
)
def test_a_telephone_number_is_known_by_its_form(number: str) -> None:
    assert not re.search(r"555|0123", PersonMask().mask_text(f"call from {number}: refused").replace("number-", ""))


@pytest.mark.parametrize("text", KEPT)
def test_other_numbers_stay(mask: PersonMask, text: str) -> None:
    assert mask.mask_text(text) == text


def test_the_same_person_has_the_same_pseudonym(mask: PersonMask) -> None:
    one, two = mask.mask_text(f"{NAME}, {NAME.lower().replace(' ', '%20')}").split(", ")
    assert one == two
    assert mask.mask_text("+49 89 55501234") == mask.mask_text("+49-(89)-555.01234")
    assert mask.mask_text("055501234") != mask.mask_text("055501235")


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T01:23:03.123Z INFO recording muxed agent=quastenflosser sources=2",
        'agent="quastenflosser of sales" sources=2',
        'the service said {"userName": "quastenflosser"}',
        r"the service said {\"userName\": \"quastenflosser\"}",
        "GET /recordings?userName=quastenflosser&limit=2",
        "GET /recordings?a=1%26userName%3Dquastenflosser%26limit=2",
        "/home/quastenflosser/muxer.cfg is missing",
        r"C:\Users\quastenflosser\muxer.cfg is missing",
        "mail quastenflosser@bank.example",
    ],
)
def test_a_name_is_found_by_its_field_and_replaced_elsewhere(text: str) -> None:
    people = PersonMask()
    people.collect_names([text])
    masked = people.mask_text(f"{text} and then quastenflosser_20261125.mp4")
    assert "flosser" not in masked and masked.count("person-") >= 2


def test_texts_and_keys_of_json_are_masked_and_numbers_kept() -> None:
    people = PersonMask()
    document = {"agent": "quastenflosser", "bytes": 1234567890, "out": {"quastenflosser": ["089 55501234", None, True]}}
    people.collect_names(document)
    masked = people.mask_json(document)
    assert masked["bytes"] == 1234567890 and "flosser" not in str(masked) and "5550" not in str(masked["out"])


def test_a_default_is_no_name() -> None:
    people = PersonMask(unmasked=["ops"])
    people.add_name("ops")
    assert people.mask_text("login as ops") == "login as ops"


def test_a_short_number_is_replaced_when_its_field_shows_that_it_is_one() -> None:
    people = PersonMask()
    people.collect_names({"phoneNumber": "7001"})
    assert "7001" not in people.mask_text("transfer to 7001")


def test_a_long_word_takes_no_long_time() -> None:
    mask, begin = PersonMask(), time.monotonic()
    mask.collect_names("a" * 80_000)
    assert mask.mask_text("a" * 80_000) == "a" * 80_000
    assert time.monotonic() - begin < 10
