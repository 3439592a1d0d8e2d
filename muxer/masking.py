"""What of a text must never be shown, whoever shows it."""

from __future__ import annotations

import re

# The login of an address, up to the last @ before its path: a password may hold one.
LOGIN_IN_URL = re.compile(r"(?<=://)[^/\s]*@")
