"""What of a text must never be shown, whoever shows it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote, quote_plus

# The login of an address, up to the last @ before its path: a password may hold one.
LOGIN_IN_URL = re.compile(r"(?<=://)[^/\s]*@")
# A shorter secret cannot be told from ordinary words; it is kept out by never being handed to whoever writes.
LEAST_SECRET = 6


class Mask:
    """Removes secrets from texts, in whatever form they may have been sent and echoed."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        """Given the secrets."""
        long = (one for one in secrets if len(one) >= LEAST_SECRET)
        # A text that was put into one form may be put into another: a message into a line of JSON.
        forms = {twice for one in long for once in _forms(one) for twice in _forms(once)}
        self._forms = sorted(forms, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Given a text, return it with ``***`` in place of each secret and each login in an address."""
        for form in self._forms:
            text = text.replace(form, "***")
        return LOGIN_IN_URL.sub("***@", text)


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, in JSON, in ``repr``, in HTML and in a URL."""
    yield secret
    yield from (json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    yield repr(secret)[1:-1]
    yield html.escape(secret)
    yield quote(secret, safe="")
    yield quote_plus(secret)
