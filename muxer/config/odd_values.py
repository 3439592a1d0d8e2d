"""Finds values that are probably not meant as they are written: quotes, blanks, a comment behind the value. Pure."""

from __future__ import annotations

import re

# Python 2 read text behind " ;" as a comment.
_COMMENT = re.compile(r"\s([;#])")
_QUOTES = "\"'"


def describe_oddity(text: str) -> str:
    """Return what is odd about the text of an option, without its value, which may be a secret; empty when nothing is."""
    if text != text.strip():
        return "the value begins or ends with a blank"
    if len(text) > 1 and text[0] == text[-1] and text[0] in _QUOTES:
        return "the quotes around the value are part of it; remove them if they are not meant"
    if (comment := _COMMENT.search(text)) is not None:
        return f"the text from {comment[1]} on is part of the value; a comment needs a separate line"
    return ""
