"""Pseudonyms for agents, whose user names are personal data.

An agent has the same pseudonym everywhere on the page, so that all failures of one workplace are visible. Each start uses a
new key, so that pseudonyms cannot be resolved with a table of names.
"""

from __future__ import annotations

import hmac
import secrets

_KEY = secrets.token_bytes(16)
LABEL_BYTES = 4


def agent_pseudonym(agent: str) -> str:
    """Return the pseudonym of an agent; an empty text for an empty name."""
    return hmac.digest(_KEY, agent.encode(errors="backslashreplace"), "sha256").hex()[:LABEL_BYTES] if agent else ""
