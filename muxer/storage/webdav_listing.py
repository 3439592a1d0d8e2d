"""Reads the listing of a WebDAV folder while it arrives, so that memory does not grow with the number of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree.ElementTree import Element, ParseError, XMLPullParser

from muxer.errors import UnreadableResponse
from muxer.storage.base import ObjectInfo, StoredFile
from muxer.storage.webdav_names import file_name_in

# The header Depth of a request for a folder and what is directly in it.
LISTING_DEPTH = "1"
_DAV = "{DAV:}"


def read_listing(chunks: Iterable[bytes], url: str) -> Iterator[StoredFile]:
    """Yield the files of a multistatus response, without folders. Raises UnreadableResponse when it is not whole."""
    parser: Any = XMLPullParser(("start", "end"))
    root: Element | None = None
    try:
        for chunk in chunks:
            parser.feed(chunk)
            for event, element in parser.read_events():
                if event == "start":
                    root = element if root is None else root
                elif element.tag == f"{_DAV}response" and root is not None:
                    found = _read_file(element)
                    root.clear()
                    if found is not None:
                        yield found
        parser.close()
    except (ParseError, ValueError, TypeError, OverflowError) as error:
        raise UnreadableResponse(f"PROPFIND {url}: the listing of the folder is not valid WebDAV: {error}") from error
    if root is None or root.tag != f"{_DAV}multistatus":
        raise UnreadableResponse(f"PROPFIND {url}: the response is not the listing of a folder")


def _read_file(response: Element) -> StoredFile | None:
    href = (response.findtext(f"{_DAV}href") or "").strip()
    name = file_name_in(href)
    if response.find(f".//{_DAV}resourcetype/{_DAV}collection") is not None or href.endswith("/") or not name:
        return None
    length = response.findtext(f".//{_DAV}getcontentlength") or "0"
    tag = (response.findtext(f".//{_DAV}getetag") or "").removeprefix("W/")
    modified = response.findtext(f".//{_DAV}getlastmodified")
    at = parsedate_to_datetime(modified).timestamp() if modified else None
    return StoredFile(name, ObjectInfo(int(length), tag), at)
