"""Secrets are masked in every form in which a server may echo them."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from html.entities import html5
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxer.system.masking import MIN_SECRET_LENGTH, Mask

SECRET = "p\u00e4&\"<q'+/ x\U0001f600\\"
LONGER_SECRET = f"{SECRET}-and-more"


def hex_entities(text: str) -> str:
    return "".join(f"&#x{ord(char):X};" for char in text)


def every_byte(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


HTML_NAMES = {char: f"&{name}" for name, char in html5.items() if len(char) == 1}
FORMS: dict[str, Callable[[str], str]] = {
    "unchanged": str,
    "JSON": json.dumps,
    "JSON with non-ASCII letters unescaped": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON that is safe in HTML": lambda text: (
        json.dumps(text).replace("&", "\\u0026").replace("<", "\\u003C").replace("'", "\\u0027")
    ),
    "JSON with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "HTML": html.escape,
    "HTML with decimal numbers": lambda text: html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#039;"),
    "HTML with hexadecimal numbers": hex_entities,
    "HTML in HTML": lambda text: html.escape(html.escape(text)),
    "URL": lambda text: quote(text, safe=""),
    "URL in lower case": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "URL with slashes": quote,
    "URL with each byte": every_byte,
    "URL in a URL": lambda text: quote(quote(text, safe="")),
    "bytes in Python notation": lambda text: repr(text.encode())[2:-1],
    "bytes in JSON": lambda text: json.dumps(repr(text.encode())[2:-1]),
    "each byte in JavaScript notation": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "HTML with all named entities": lambda text: "".join(HTML_NAMES.get(char, char) for char in text),
    "Base64 in JSON": lambda text: json.dumps(base64.b64encode(text.encode()).decode()).replace("/", "\\/"),
    "Base64 in a URL": lambda text: quote(base64.b64encode(text.encode()).decode(), safe=""),
    "Base64": lambda text: base64.b64encode(text.encode()).decode(),
    "Base64 for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "Base64 of credentials": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "Base64 inside longer text": lambda text: base64.b64encode(f"ab{text}cd".encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_a_secret_is_shown(form: str) -> None:
    text = f"before {FORMS[form](SECRET)} after {FORMS[form](LONGER_SECRET)}"
    shown = Mask([SECRET, LONGER_SECRET])(text)
    assert shown.startswith("before ") and " after " in shown and "***" in shown
    left = shown.replace("***", "").replace("before", "").replace("after", "")
    # In Base64, digits shared by a secret and its neighbouring text are not masked: at most two on each side.
    assert len(left.strip(' "\\')) <= (len(FORMS[form]("")) + 16 if "Base64" in form else 0), shown


@settings(deadline=None)
@given(st.text(min_size=MIN_SECRET_LENGTH, max_size=20), st.sampled_from(sorted(FORMS)))
def test_a_secret_of_any_characters(secret: str, form: str) -> None:
    try:
        text = FORMS[form](secret)
    except UnicodeEncodeError:
        return
    shown = Mask([secret])(f"<{text}>")
    assert text not in shown and "***" in shown


@pytest.mark.parametrize("form", ["Base64", "login", "URL", "bytes"])
def test_a_secret_in_latin_1(form: str) -> None:
    secret = "p\u00e4ss\u00f6\u00fc\u00df\u00ff\u00fe"
    encoded = secret.encode("latin-1")
    text = {
        "Base64": base64.b64encode(encoded).decode(),
        "login": base64.b64encode(b"user:" + encoded).decode(),
        "URL": quote(encoded),
        "bytes": repr(encoded),
    }[form]
    assert "***" in Mask([secret])(text) and len(Mask([secret])(text)) < 16


def test_ordinary_words_are_not_masked() -> None:
    text = 'GET /api/v2/x?y=1: HTTP 500, {"statusCode": 4, "statusMessage": "a & b"}'
    assert Mask([SECRET, "another-secret"])(text) == text
