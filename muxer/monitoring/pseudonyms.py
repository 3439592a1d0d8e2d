"""Pseudonyms for agents, the same everywhere on the page; each start uses a new key, so that no table resolves them."""

from __future__ import annotations

import hmac
import secrets

_KEY = secrets.token_bytes(16)
LABEL_BYTES = 4


def agent_pseudonym(agent: str) -> str:
    """Return the pseudonym of an agent; an empty text for an empty name."""
    return hmac.digest(_KEY, agent.encode(errors="backslashreplace"), "sha256").hex()[:LABEL_BYTES] if agent else ""
