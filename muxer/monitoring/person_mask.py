"""Replaces the names and telephone numbers of people in texts that leave the site, by pseudonyms.

A name is replaced when it is known: because it is the value of a field for names, a part of an address, or given by the
caller. It is compared word by word, so that case, separators and encodings do not matter. Numbers are known by their form.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from muxer.monitoring.pseudonyms import person_pseudonym

# Texts that are encoded more often are not decoded to the end: they would come from someone who hides something.
MAX_ENCODINGS = 5
# Between two words of a name: a space, or what stands for it in an address or a file name.
MAX_SEPARATOR_LENGTH = 3
# Shorter parts of a name are no names by themselves.
MIN_PART_LENGTH = 4

_WORD = re.compile(r"[^\W_]+")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ESCAPE = re.compile(r"\\+(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|([ntr]))")
_CONTROL = {"n": "\n", "t": "\t", "r": "\r"}
_NAME_KEYS = (
    r"agent|user_?name|user_?id|employee_?id|first_?name|last_?name|full_?name|display_?name|email|ani|dnis"
    r"|(?:caller_?|dialed_?)?phone_?number"
)
_NAME_FIELD = re.compile(rf"(?:{_NAME_KEYS})", re.IGNORECASE)
_NAME_IN_TEXT = re.compile(
    rf"""(?:(?<![^\W_])|(?<=_))(?:{_NAME_KEYS})\\*(?:["']\s*[:=]\s*\\*["']([^"'\\]*)|\s?=\s?(?:\\*["']([^"'\\]*)|([^\s&"',;<>\[\](){{}}]+)))""",
    re.IGNORECASE,
)
_HOME_FOLDER = re.compile(r"(?:/home/|[\\/]Users[\\/]+)([^/\\\s\"':;,]+)")
# Without a bound, the time for a long word grows with its square.
_MAIL_ADDRESS = re.compile(r"([\w.+-]{1,128})@[\w-]+\.[\w.-]+")
# Long numbers that are no telephone numbers: ids, times, versions, addresses, and values with a unit or a field.
_KNOWN_NUMBER = (
    r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?"
    r"|(?:19|20)\d\d-(?:19|20)\d\d|20\d\d\.\d{1,2}\.\d{1,2}(?:\.\d+)?"
    r"|20\d{6}[_T-]?\d{6}|(?<=_)20\d{6}(?=[_.])"
    r"|(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)"
    r"|\d+(?:\.\d+)? ?(?:bytes|B|[kKMG]i?B|s|ms|us|min|h|%)"
    r"|(?:process|pid) \d+"
    r"|(?:[a-z_]*(?:seconds|bytes|minutes)|length|padding|paused|sync|size|sources|attempt|step)=\d+(?:\.\d+)?"
)
_NUMBER = r"(?:\+ ?|\(\+?)?\d(?:[ ()/.\-]{0,3}\d){6,16}"
_NUMBERS = re.compile(rf"(?<![^\W_])(?:(?:{_KNOWN_NUMBER})(?![^\W_])|({_NUMBER})(?![^\W_]))", re.IGNORECASE)


class PersonMask:
    """Replaces the known names and all telephone numbers. Names are added first, texts masked then."""

    def __init__(self, unmasked: Iterable[str] = ()) -> None:
        """`unmasked` are names of no one, such as the defaults of options."""
        self._unmasked = {_split_words(name) for name in unmasked}
        self._names: dict[str, set[tuple[str, ...]]] = {}

    def add_name(self, name: str) -> None:
        """Add the name, or the number, of a person; of a name with spaces its parts too."""
        plain = decode_text(name)
        self._add_words(_split_words(plain))
        if len(parts := plain.split()) > 1:
            for part in parts:
                if len(part) >= MIN_PART_LENGTH:
                    self._add_words(_split_words(part))

    def collect_names(self, value: Any, field: str = "") -> None:
        """Add the names in a text, or in a structure of JSON whose fields say which texts are names."""
        match value:
            case dict():
                for key, inner in value.items():
                    self.collect_names(str(key))
                    self.collect_names(inner, str(key))
            case list() | tuple():
                for inner in value:
                    self.collect_names(inner, field)
            case str():
                if _NAME_FIELD.fullmatch(field):
                    self.add_name(value)
                for name in _names_in(decode_text(value)):
                    self.add_name(name)

    def _add_words(self, words: tuple[str, ...]) -> None:
        if words and words not in self._unmasked and len("".join(words)) > 1:
            self._names.setdefault(words[0], set()).add(words)

    def mask_text(self, text: str) -> str:
        """Return `text`, decoded, with a pseudonym in place of each name and number."""
        return self._mask_names(_NUMBERS.sub(_mask_number, decode_text(text)))

    def mask_json(self, value: Any) -> Any:
        """Return a structure of JSON whose texts are masked."""
        match value:
            case dict():
                return {self.mask_text(str(key)): self.mask_json(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self.mask_json(inner) for inner in value]
            case str():
                return self.mask_text(value)
        return value

    def _mask_names(self, text: str) -> str:
        words = [(found[0].lower(), *found.span()) for found in _WORD.finditer(text)]
        parts, done = [], 0
        for number, (word, start, _) in enumerate(words):
            if start >= done and word in self._names:
                length = self._name_length(words, number)
                if length:
                    name = " ".join(found for found, _, _ in words[number : number + length])
                    parts += [text[done:start], f"person-{person_pseudonym(name)}"]
                    done = words[number + length - 1][2]
        return "".join([*parts, text[done:]])

    def _name_length(self, words: list[tuple[str, int, int]], number: int) -> int:
        """Return the number of words of the longest name that starts at word `number`; 0 when there is none."""
        longest = 0
        for name in self._names[words[number][0]]:
            found = words[number : number + len(name)]
            is_near = all(then[1] - before[2] <= MAX_SEPARATOR_LENGTH for before, then in pairwise(found))
            if is_near and tuple(word for word, _, _ in found) == name:
                longest = max(longest, len(name))
        return longest


def decode_text(text: str) -> str:
    """Return a text in which nothing is escaped any more as in URLs, HTML or JSON."""
    for _ in range(MAX_ENCODINGS):
        plain = _ESCAPE.sub(_decode_escape, html.unescape(_PERCENT.sub(_decode_percent, text)))
        if plain == text:
            break
        text = plain
    return unicodedata.normalize("NFC", text)


def _names_in(text: str) -> Iterator[str]:
    for found in _NAME_IN_TEXT.finditer(text):
        yield next(filter(None, found.groups()), "")
    for pattern in (_HOME_FOLDER, _MAIL_ADDRESS):
        yield from pattern.findall(text)


def _split_words(name: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(name.lower()))


def _mask_number(found: re.Match[str]) -> str:
    digits = "".join(filter(str.isdigit, found[1] or ""))
    return f"number-{person_pseudonym(digits)}" if digits else found[0]


def _decode_percent(found: re.Match[str]) -> str:
    content = bytes.fromhex(found[0].replace("%", ""))
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _decode_escape(found: re.Match[str]) -> str:
    return _CONTROL[found[3]] if found[3] else chr(int(found[1] or found[2], 16))
