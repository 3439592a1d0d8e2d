"""Masks secrets in texts."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import string
from collections.abc import Iterator, Sequence
from functools import cache
from html.entities import html5
from urllib.parse import quote, quote_plus

# The credentials in an address, up to the last @ before its path: a password may contain one.
URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")
# The beginning of a path, which may contain @; two slashes are the rest of an address.
_PATH_BEGIN = re.compile(r"/(?!/)|[.\\]|[A-Za-z]:\\")
# A shorter secret resembles ordinary words; it is never passed to code that logs.
MIN_SECRET_LENGTH = 6
# Escapes of JSON and Python for control characters.
_LETTERS = {"\b": "b", "\t": "t", "\n": "n", "\f": "f", "\r": "r"}
_DIGITS = string.ascii_letters + string.digits


class Mask:
    """Replaces secrets in texts, in every encoding in which they may have been sent and echoed."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        long = [one for one in secrets if len(one) >= MIN_SECRET_LENGTH]
        # A text may be encoded twice, such as a message in a line of JSON.
        forms = {twice for one in long for once in _secret_forms(one) for twice in _secret_forms(once)}
        encoded = {encoded for one in long for encoded in _base64_forms(one)}
        self._forms = sorted(forms | encoded, key=len, reverse=True)
        patterns = [_escaped_pattern(one) for one in sorted(long, key=len, reverse=True)]
        # JSON and URLs escape only the symbols of Base64.
        patterns += [
            _escaped_pattern(one, but=_DIGITS) for one in sorted(encoded, key=len, reverse=True) if not one.isalnum()
        ]
        self._escaped = re.compile("|".join(patterns)) if long else None

    def __call__(self, text: str) -> str:
        """Return `text` with ``***`` in place of each secret and of the credentials in addresses."""
        for form in self._forms:
            text = text.replace(form, "***")
        if self._escaped is not None:
            text = self._escaped.sub("***", text)
        return URL_CREDENTIALS.sub("***@", text)


def mask_credentials(text: str) -> str:
    """Return a text of an option, which may be a mistyped address, with ``***`` in place of all that may be credentials."""
    head, sign, rest = text.replace("\uff20", "@").rpartition("@")
    if not sign or _PATH_BEGIN.match(text) or not any(char in head for char in ":;/"):
        return text
    scheme, is_address, _ = head.partition("://")
    return f"{scheme}://***@{rest}" if is_address and scheme.isalpha() else f"***@{rest}"


def _secret_forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, in JSON, in ``repr``, in HTML and in a URL."""
    yield secret
    yield from (json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    yield quote(secret, safe="")
    yield quote_plus(secret)


def _base64_forms(secret: str) -> Iterator[str]:
    """Yield the Base64 forms of a secret, in both alphabets: alone, and at each offset in a longer text."""
    found = []
    for content in _encoded_bytes(secret):
        found.append(base64.b64encode(content).decode())
        for before in range(3):
            encoded = base64.b64encode(bytes(before) + content).decode()
            # Without the digits that share bits with the text before and after the secret.
            found.append(encoded[(8 * before + 5) // 6 : 8 * (before + len(content)) // 6])
    for one in found:
        yield from (one, one.replace("+", "-").replace("/", "_"))


def _encoded_bytes(text: str) -> set[bytes]:
    """Return the bytes of a text, as UTF-8 and, if possible, as Latin-1, which HTTP libraries use for credentials."""
    with contextlib.suppress(UnicodeEncodeError):
        return {text.encode(errors="surrogatepass"), text.encode("latin-1")}
    return {text.encode(errors="surrogatepass")}


def _escaped_pattern(secret: str, but: str = "") -> str:
    """Return the pattern of a secret whose characters may be escaped, but for those in `but`."""
    return "".join(char if char in but else f"(?:{'|'.join(_character_escapes(char))})" for char in secret)


@cache
def _html_names() -> dict[str, list[str]]:
    """Return the HTML entity names of each character, the longest first."""
    found: dict[str, list[str]] = {}
    for name in sorted(html5, key=len, reverse=True):
        found.setdefault(html5[name], []).append(name)
    return found


def _character_escapes(char: str) -> Iterator[str]:
    for content in _encoded_bytes(char):
        yield "".join(f"(?i:%(?:25)*{byte:02x})" for byte in content)
        yield "".join(rf"(?i:\\+x{byte:02x})" for byte in content)
    units = char.encode("utf-16-be", errors="surrogatepass")
    yield "".join(rf"(?i:\\+u{int.from_bytes(units[at : at + 2], 'big'):04x})" for at in range(0, len(units), 2))
    yield rf"(?i:&(?:amp;)*#(?:0*{ord(char)}|x0*{ord(char):x});?)"
    yield from (f"&(?:amp;)*{name}" for name in _html_names().get(char, ()))
    if letter := _LETTERS.get(char):
        yield rf"\\+{letter}"
    yield rf"\\+{re.escape(char)}"
    yield re.escape(char)
    if char == " ":
        yield re.escape("+")
