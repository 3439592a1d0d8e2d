"""The names of muxed files: creates them, and recognizes those of a recording. Pure.

A name contains a digest of the recording's id and its sources: so two recordings never share a name, even on a server that
ignores case, and two muxers agree (docs/gir-api.md, section 5).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence

from muxer.gir.masks import PausedSpan
from muxer.gir.models import MediaFile

# The number of characters of the recording id in a name, now and in earlier versions.
MAX_PREFIX_LENGTH, _EARLIER_PREFIX = 56, 64
# Suffix of the name of an encrypted muxed file.
ENCRYPTED_SUFFIX = ".bin"
# Marks, before the digests, the name of a muxed file with blank paused spans.
BLANKED_MARK = "p"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_BLANKED_NAME = re.compile(rf"(.*_){BLANKED_MARK}([0-9a-f]{{20}})[0-9a-f]{{8}}(_muxed\.mp4)")
# Additions to the name of a file that was muxed again, or encrypted.
_NAME_ADDITIONS = re.compile(rf"-\d+(?=_muxed\.mp4)|{re.escape(ENCRYPTED_SUFFIX)}$")


def muxed_name(recording_id: str, sources: Iterable[str], paused: Sequence[PausedSpan] = ()) -> str:
    """Return the name of a clear muxed file, a pure function of the exact id, the set of sources and the pauses."""
    made_of = _short_digest(20, json.dumps([recording_id, sorted(set(sources))]))
    spans = _short_digest(8, *(f"{begin}-{'' if end is None else end}" for begin, end in paused)) if paused else ""
    return f"{_name_prefix(recording_id)}_{BLANKED_MARK if paused else ''}{made_of}{spans}_muxed.mp4"


def has_paused_spans(name: str, recording_id: str, sources: Iterable[str], paused: Sequence[PausedSpan]) -> bool:
    """Return whether the muxed file was made with the `paused` spans; without any, a name without the mark matches."""
    plain = _NAME_ADDITIONS.sub("", name)
    if not paused:
        return _BLANKED_NAME.fullmatch(plain) is None
    return plain == muxed_name(recording_id, sources, paused)


def is_muxed_file(media: MediaFile, recording_id: str) -> bool:
    """Return whether this or an earlier version gives such a name to a muxed file of the recording."""
    sources = media.muxed_from or ()
    names = {muxed_name(recording_id, sources), _earlier_name(recording_id, sources)}
    return all(_base_name(name) in names for name in media.known_names)


def has_earlier_name(media: MediaFile, recording_id: str) -> bool:
    """Return whether a name is of an earlier version, and may equal that of another recording but for case."""
    earlier = _earlier_name(recording_id, media.muxed_from or ())
    return any(_base_name(name) == earlier for name in media.known_names)


def _base_name(name: str) -> str:
    """Return the name without its additions: clear, muxed once, and without blank spans."""
    plain = _NAME_ADDITIONS.sub("", name)
    found = _BLANKED_NAME.fullmatch(plain)
    return "".join(found.groups()) if found else plain


def _earlier_name(recording_id: str, sources: Iterable[str]) -> str:
    """Return the name by earlier versions, empty when another recording may have a file of that name."""
    prefix, sources = _name_prefix(recording_id, _EARLIER_PREFIX), tuple(sources)
    may_be_ids = any(_name_prefix(one, _EARLIER_PREFIX) == prefix for one in sources)
    # NUL separates the texts: it is ambiguous when one of them contains it.
    is_ambiguous = may_be_ids or any("\0" in one for one in (recording_id, *sources))
    if is_ambiguous or len(recording_id) > _EARLIER_PREFIX:
        return ""
    odd = () if prefix == recording_id else (recording_id,)
    return f"{prefix}_{_short_digest(20, *odd, *sorted(sources))}_muxed.mp4"


def _short_digest(length: int, *texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:length]


def _name_prefix(recording_id: str, max_length: int = MAX_PREFIX_LENGTH) -> str:
    return _UNSAFE.sub("_", recording_id)[:max_length].lstrip(".-")
