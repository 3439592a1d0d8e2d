"""Split Ogg files that are several files in one (chained, RFC 3533): versions of ffmpeg read them differently."""

from __future__ import annotations

from mmap import ACCESS_READ, mmap
from pathlib import Path

from muxer.system.files import open_private

_PAGE, _FLAGS, _BEGINS = b"OggS\0", 5, 2


def find_links(content: bytes | mmap) -> list[int]:
    """Return where each joined file starts: at the first page that starts a stream after pages of other streams."""
    links: list[int] = []
    began = False
    position = content.find(_PAGE)
    while 0 <= position < len(content) - _FLAGS:
        begins = bool(content[position + _FLAGS] & _BEGINS)
        if begins and not began:
            links.append(position)
        began = begins
        position = content.find(_PAGE, position + _FLAGS)
    return links


def split_links(path: Path, output: Path) -> list[Path]:
    """Write each of the files joined in `path` to its own file; return their paths, none for one file."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        links = find_links(content)
        if len(links) < 2:
            return []
        paths = []
        for number, (begin, end) in enumerate(zip(links, [*links[1:], len(content)], strict=True)):
            paths.append(output.with_name(f"link-{number}.ogg"))
            with open_private(paths[-1]) as out, memoryview(content) as view, view[begin:end] as link:
                out.write(link)
        return paths
