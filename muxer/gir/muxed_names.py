"""The names of muxed files, and which of them a recording would give. Pure.

A name holds a digest of the exact id of the recording and of its sources: so two recordings never share a name, whatever
their ids and sources are called, also on a server that ignores case; and two muxers that race agree (docs/gir-api.md,
section 5). A name that the recording would not give to the sources listed is not taken for one of its files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence

from muxer.gir.masks import PausedSpan
from muxer.gir.models import MediaFile

# Of the id of the recording, a name holds so many characters; those of earlier versions hold more.
MAX_PREFIX_LENGTH, _EARLIER_PREFIX = 56, 64
# What stands at the end of the name of an encrypted muxed file.
ENCRYPTED_SUFFIX = ".bin"
# In the name of a muxed file in which paused spans are blank, this stands before the digests, where no other name has it.
BLANKED_MARK = "p"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_BLANKED_NAME = re.compile(rf"(.*_){BLANKED_MARK}([0-9a-f]{{20}})[0-9a-f]{{8}}(_muxed\.mp4)")
# What the name of a file that was muxed once more, or encrypted, has besides.
_NAME_ADDITIONS = re.compile(rf"-\d+(?=_muxed\.mp4)|{re.escape(ENCRYPTED_SUFFIX)}$")


def muxed_name(recording_id: str, sources: Iterable[str], paused: Sequence[PausedSpan] = ()) -> str:
    """Return the name of a clear muxed file.

    It is a pure function of the exact `recording_id`, the set of the `sources` (mediaIds), and the `paused` spans that are
    blank in the file.
    """
    made_of = _short_digest(20, json.dumps([recording_id, sorted(set(sources))]))
    spans = _short_digest(8, *(f"{begin}-{'' if end is None else end}" for begin, end in paused)) if paused else ""
    return f"{_name_prefix(recording_id)}_{BLANKED_MARK if paused else ''}{made_of}{spans}_muxed.mp4"


def has_paused_spans(name: str, recording_id: str, sources: Iterable[str], paused: Sequence[PausedSpan]) -> bool:
    """Return whether the muxed file `name` was made with the `paused` spans, by its name.

    Without spans any name will do that does not tell of some: earlier versions and other programs have made files too.
    """
    plain = _NAME_ADDITIONS.sub("", name)
    if not paused:
        return _BLANKED_NAME.fullmatch(plain) is None
    return plain == muxed_name(recording_id, sources, paused)


def is_muxed_file(media: MediaFile, recording_id: str) -> bool:
    """Return whether the entry and the file of `media` bear a name that this version, or an earlier one, gives to a muxed
    file of the recording and of the sources that the entry lists."""
    sources = media.muxed_from or ()
    names = {muxed_name(recording_id, sources), _earlier_name(recording_id, sources)}
    return all(_base_name(name) in names for name in media.known_names)


def has_earlier_name(media: MediaFile, recording_id: str) -> bool:
    """Return whether the entry or the file of `media` bears a name of an earlier version, which that of another recording
    may equal where case is ignored."""
    earlier = _earlier_name(recording_id, media.muxed_from or ())
    return any(_base_name(name) == earlier for name in media.known_names)


def _base_name(name: str) -> str:
    """Return the name that a muxed file would bear if it were clear, the first of its sources and spans, and not blank."""
    plain = _NAME_ADDITIONS.sub("", name)
    found = _BLANKED_NAME.fullmatch(plain)
    return "".join(found.groups()) if found else plain


def _earlier_name(recording_id: str, sources: Iterable[str]) -> str:
    """Return the name that earlier versions give: the id is in the digest only where the prefix does not show it exactly.

    Empty when another recording may have a file of that name: one of the sources may be the id of that recording, which
    stands in the same place of its digest, or this id may be a source of that one.
    """
    prefix, sources = _name_prefix(recording_id, _EARLIER_PREFIX), tuple(sources)
    may_be_ids = any(_name_prefix(one, _EARLIER_PREFIX) == prefix for one in sources)
    # NUL stands between the texts: it tells them apart only when it is in none of them.
    is_ambiguous = may_be_ids or any("\0" in one for one in (recording_id, *sources))
    if is_ambiguous or len(recording_id) > _EARLIER_PREFIX:
        return ""
    odd = () if prefix == recording_id else (recording_id,)
    return f"{prefix}_{_short_digest(20, *odd, *sorted(sources))}_muxed.mp4"


def _short_digest(length: int, *texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:length]


def _name_prefix(recording_id: str, longest: int = MAX_PREFIX_LENGTH) -> str:
    """Return the id of a recording as far as it can stand in a file name, in at most `longest` characters."""
    return _UNSAFE.sub("_", recording_id)[:longest].lstrip(".-")
