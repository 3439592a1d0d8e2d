"""Reads BER (X.690) from a stream, as far as a CMS structure needs it: tags, definite and indefinite lengths, chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

# The longest element that is held in memory; the ciphertext is streamed and may be longer.
MAX_HELD_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 256 * 1024
MAX_DEPTH = 16

INTEGER, OCTET_STRING, OBJECT_IDENTIFIER, SEQUENCE, SET = 0x02, 0x04, 0x06, 0x30, 0x31
CONSTRUCTED = 0x20
END_OF_CONTENTS = 0x00


class ByteSource(Protocol):
    """Anything to read bytes from."""

    def read(self, size: int = -1, /) -> bytes: ...


class BerError(ValueError):
    """The bytes are not BER, or truncated."""


@dataclass(frozen=True)
class ElementHeader:
    """The header of an element: its tag byte, the length of its content (None: indefinite), and its raw bytes."""

    tag: int
    length: int | None
    raw: bytes


class BerReader:
    """A stream of BER, read element by element."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.position = 0

    def read_exactly(self, size: int) -> bytes:
        """Return the next `size` bytes. Raises BerError when there are fewer."""
        parts, missing = [], size
        while missing:
            part = self._source.read(missing)
            if not part:
                raise BerError("the structure is truncated")
            parts.append(part)
            missing -= len(part)
        self.position += size
        return b"".join(parts)

    def read_header(self) -> ElementHeader:
        """Return the header of the next element."""
        raw = self.read_exactly(2)
        tag, first = raw
        if tag & 0x1F == 0x1F:
            raise BerError("a tag of several bytes is invalid in a CMS structure")
        if first < 0x80:
            return ElementHeader(tag, first, raw)
        if first == 0x80:
            return ElementHeader(tag, None, raw)
        size = self.read_exactly(first & 0x7F)
        if len(size) > 8:
            raise BerError("a length of more than eight bytes")
        return ElementHeader(tag, int.from_bytes(size, "big"), raw + size)

    def expect_header(self, tag: int, name: str) -> ElementHeader:
        """Return the header of the next element, which must have `tag`."""
        found = self.read_header()
        if found.tag != tag:
            raise BerError(f"{name}: tag 0x{tag:02x} expected, 0x{found.tag:02x} found")
        return found

    def read_element(self, header: ElementHeader, depth: int = 0) -> bytes:
        """Return the whole element, with its header, as it is in the stream."""
        if depth > MAX_DEPTH:
            raise BerError("elements are nested too deeply")
        if header.length is not None:
            if header.length > MAX_HELD_BYTES:
                raise BerError("an element is too long")
            return header.raw + self.read_exactly(header.length)
        parts, size = [header.raw], 0
        while True:
            inner = self.read_header()
            parts.append(self.read_element(inner, depth + 1))
            size += len(parts[-1])
            if size > MAX_HELD_BYTES:
                raise BerError("an element is too long")
            if inner.tag == END_OF_CONTENTS:
                return b"".join(parts)

    def iterate_octets(self, header: ElementHeader, depth: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an octet string, which may consist of chunks."""
        if depth > MAX_DEPTH:
            raise BerError("chunks are nested too deeply")
        if not header.tag & CONSTRUCTED:
            if header.length is None:
                raise BerError("a primitive element without a length")
            remaining = header.length
            while remaining:
                piece = self.read_exactly(min(remaining, CHUNK_BYTES))
                remaining -= len(piece)
                yield piece
            return
        end = self.content_end(header)
        while end is None or self.position < end:
            chunk = self.read_header()
            if end is None and chunk.tag == END_OF_CONTENTS:
                return
            if chunk.tag & ~CONSTRUCTED != OCTET_STRING:
                raise BerError(f"a chunk has the tag 0x{chunk.tag:02x}")
            yield from self.iterate_octets(chunk, depth + 1)
        if self.position != end:
            raise BerError("a chunk is longer than its container")

    def content_end(self, header: ElementHeader) -> int | None:
        """Return the end position of the element whose header was just read, None for an indefinite length."""
        return None if header.length is None else self.position + header.length

    def skip_to(self, end: int | None) -> None:
        """Skip the remaining elements of the container that ends at `end`, and its end."""
        while end is None or self.position < end:
            header = self.read_header()
            if end is None and header.tag == END_OF_CONTENTS:
                return
            self.read_element(header)
        if self.position != end:
            raise BerError("an element is longer than its container")


def encode_definite(tag: int, content: bytes) -> bytes:
    """Return the element with a definite length (DER)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content
