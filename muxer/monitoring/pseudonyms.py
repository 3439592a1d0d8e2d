"""Pseudonyms for people, the same in one page or archive; each start uses a new key, so that no table resolves them."""

from __future__ import annotations

import hmac
import secrets

_KEY = secrets.token_bytes(16)
LABEL_BYTES = 4
PERSON_BYTES = 8


def agent_pseudonym(agent: str) -> str:
    """Return the pseudonym of an agent; an empty text for an empty name."""
    return _digest(agent)[:LABEL_BYTES] if agent else ""


def person_pseudonym(name: str) -> str:
    """Return a longer pseudonym, for texts with thousands of names and numbers."""
    return _digest(name)[:PERSON_BYTES]


def _digest(text: str) -> str:
    return hmac.digest(_KEY, text.encode(errors="backslashreplace"), "sha256").hex()
