"""The names of files on WebDAV servers: temporary ones, and those in responses. Pure."""

from __future__ import annotations

import hashlib
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

# The longest temporary name, in bytes. Common file systems take 255, but lighttpd lengthens the name while it writes.
_MAX_NAME_BYTES = 200


def temporary_name(mark: str, name: str) -> str:
    """Return a name with the mark in front: MultiViews takes a file with a longer name for the short one."""
    whole = f"part-{mark}-{name}"
    if len(whole.encode()) <= _MAX_NAME_BYTES:
        return whole
    head = f"part-{mark}-{hashlib.sha256(name.encode()).hexdigest()[:16]}-"
    return head + name.encode()[len(head) - _MAX_NAME_BYTES :].decode(errors="ignore")


def file_name_in(address: str) -> str:
    """Return the name of the file in an address or path, empty for a folder and for what is no address."""
    try:
        return unquote(urlsplit(address).path.rpartition("/")[2])
    except ValueError:
        return ""


def is_other_file(name: str, address: str) -> bool:
    """Whether `address`, in a response for the file `name`, is another file, apart from case and Unicode form."""
    found = file_name_in(address)
    return bool(name and found) and _normalize_name(found) != _normalize_name(name)


def _normalize_name(name: str) -> str:
    return normalize("NFC", name).casefold()


def url_origin(url: str) -> str:
    """Return scheme, host and port of the address `url`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
