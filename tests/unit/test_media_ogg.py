"""Ogg files that contain several files one after the other."""

from __future__ import annotations

from pathlib import Path

from muxer.media.analyze.ogg_links import find_links, split_links


def ogg_page(flags: int, body: bytes = b"body") -> bytes:
    return b"OggS\0" + bytes([flags]) + bytes(20) + bytes([1, len(body)]) + body


ONE_STREAM = ogg_page(2) + ogg_page(0) + ogg_page(4)
TWO_STREAMS = ogg_page(2) + ogg_page(2) + ogg_page(0) + ogg_page(4) + ogg_page(4)


def test_each_file_starts_with_the_first_pages_of_its_streams() -> None:
    assert find_links(ONE_STREAM) == find_links(TWO_STREAMS) == [0]
    assert find_links(ONE_STREAM + TWO_STREAMS + ONE_STREAM) == [0, len(ONE_STREAM), len(ONE_STREAM + TWO_STREAMS)]
    assert find_links(b"") == find_links(b"RIFF") == find_links(b"OggS\0") == []


def test_joined_files_are_split_and_a_single_file_is_not(tmp_path: Path) -> None:
    (path := tmp_path / "call.ogg").write_bytes(ONE_STREAM + TWO_STREAMS)
    links = split_links(path, tmp_path / "work.mp4")
    assert [link.read_bytes() for link in links] == [ONE_STREAM, TWO_STREAMS]
    path.write_bytes(TWO_STREAMS)
    assert split_links(path, tmp_path / "work.mp4") == []
