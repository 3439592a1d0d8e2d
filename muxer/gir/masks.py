"""Reads ``masks[]`` of a call: the spans in which the recording was paused (gir-api, section 3). Unclear is paused. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from muxer.gir.models import MediaFile, to_microseconds
from muxer.system.iso_time import parse_time

# A call is paused a few times. With more entries than this, the whole video is blank (our decision).
MAX_MASKS = 1000
_IS_RESUME = {"paused": False, "pause": False, "resume": True, "resumed": True}

# Begin and end in microseconds from the start of the audio file; an end of None is the end of the file.
PausedSpan = tuple[int, int | None]


@dataclass(frozen=True)
class PauseList:
    """The spans in which a recording was paused, sorted and disjoint, and the problems of its masks."""

    spans: tuple[PausedSpan, ...] = ()
    problems: tuple[str, ...] = ()


def read_pauses(media: MediaFile) -> PauseList:
    """Read the masks of a call's ``media`` file. Whatever is unclear is reported as a problem.

    Entries come in any order; equal ones are one. As many resumes end a pause as there were pauses. With more pauses the
    last span ends at the last entry, if that is a resume, else with the file. A resume that comes first ends a pause from
    the start of the file. Entries without a usable time or type are ignored.
    """
    raw = media.raw.get("masks")
    if not raw or media.start is None:
        return PauseList()
    entries = raw if isinstance(raw, list) else [raw]
    if len(entries) > MAX_MASKS:
        why = f"{media.media_id} has {len(entries)} masks, more than {MAX_MASKS}; the whole video is blank"
        return PauseList(((0, None),), (why,))
    read = [_read_mask(entry, to_microseconds(media.start)) for entry in entries]
    spans, lost = _pair_masks(mask for mask in read if mask is not None)
    problems = []
    if ignored := read.count(None):
        problems.append(f"{media.media_id}: {ignored} of {len(read)} masks have no usable time or type and are ignored")
    if lost:
        times = ", ".join(f"{time / 1e6:g} s" for time in lost)
        problems.append(f"{media.media_id}: a resume without a pause at {times}; before the first entry it is blank")
    return PauseList(_join_spans(spans), tuple(problems))


def _read_mask(entry: object, start: int) -> tuple[int, bool] | None:
    """Return the time of a mask, in microseconds from ``start``, and whether it is a resume; None when it is unusable."""
    if not isinstance(entry, Mapping):
        return None
    time, kind = parse_time(entry.get("time")), entry.get("type")
    is_resume = _IS_RESUME.get(kind.strip().lower()) if isinstance(kind, str) else None
    return None if time is None or is_resume is None else (to_microseconds(time) - start, is_resume)


def _pair_masks(masks: Iterable[tuple[int, bool]]) -> tuple[list[PausedSpan], list[int]]:
    """Return the paused spans, and the times of resumes without a pause. At one time, a pause comes first."""
    spans: list[PausedSpan] = []
    lost: list[int] = []
    depth = begin = 0
    end: int | None = None
    for time, is_resume in sorted(set(masks)):
        end = time if is_resume else None
        if not is_resume:
            begin = begin if depth else time
            depth += 1
        elif depth:
            depth -= 1
            spans += [] if depth else [(begin, time)]
        else:
            lost.append(time)
            # Before the first entry of all, the recording may have started paused.
            spans += [] if spans else [(0, time)]
    # With more pauses than resumes, the recording went on at the last entry, if that is a resume.
    return ([*spans, (begin, end)] if depth else spans), lost


def _join_spans(spans: Iterable[PausedSpan]) -> tuple[PausedSpan, ...]:
    """Return spans in order without what lies before the start of the file, and those that meet as one."""
    joined: list[PausedSpan] = []
    for begin, end in spans:
        begin = max(begin, 0)
        if end is not None and end <= begin:
            continue
        if joined and joined[-1][1] == begin:
            begin = joined.pop()[0]
        joined.append((begin, end))
    return tuple(joined)
