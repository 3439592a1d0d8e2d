"""Labels in place of agents' user names, which are personal data.

An agent has the same label wherever it stands on the page, so that failures of one workplace can be seen; labels are drawn
anew at each start, so that no table of names tells whose they are.
"""

from __future__ import annotations

import hmac
import secrets

_KEY = secrets.token_bytes(16)
LABEL_BYTES = 4


def agent_pseudonym(agent: str) -> str:
    """Given an agent's user name, return a label for it; an empty one for none."""
    return hmac.digest(_KEY, agent.encode(errors="backslashreplace"), "sha256").hex()[:LABEL_BYTES] if agent else ""
