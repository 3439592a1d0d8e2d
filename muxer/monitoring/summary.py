"""How the muxer stands, in a few words: the head of the status page. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from muxer.journal.journal import RETRY, SET_ASIDE
from muxer.monitoring.view import StatusView
from muxer.status.fleet_status import fleet_problems
from muxer.status.formatting import format_span, format_time, redact, single_line
from muxer.status.poll_age import overdue_seconds

GOOD, NOTE, BAD = "good", "note", "bad"


@dataclass(frozen=True)
class StatusSummary:
    """How things stand: how good that is, a title, and what follows from it."""

    level: str
    title: str
    words: str


def summarize_view(view: StatusView) -> StatusSummary:
    """Given a view, return the worst that is true of it."""
    return (
        _outage_summary(view)
        or _fleet_summary(view)
        or _disk_summary(view)
        or _poll_summary(view)
        or _set_aside_summary(view)
        or _dead_letter_summary(view)
        or _working_summary(view)
    )


def _outage_summary(view: StatusView) -> StatusSummary | None:
    out = [one for one in view.services if not one.up]
    if not out:
        return None
    since = min(one.since or view.at for one in out)
    names = " and ".join(single_line(one.name) for one in out[:3]) + (" and others" if len(out) > 3 else "")
    title = f"{names} {'is' if len(out) == 1 else 'are'} out since {format_time(since)} UTC ({format_span(view.at - since)})"
    needed, back = ("it", "it is") if len(out) == 1 else ("them", "they are")
    return StatusSummary(
        BAD, title, f"Recordings that need {needed} wait, and go on by themselves when {back} back. Nothing is lost."
    )


def _fleet_summary(view: StatusView) -> StatusSummary | None:
    """Return what keeps the fleet from its work."""
    reasons = fleet_problems(view.fleet) if view.fleet else ()
    if view.fleet is None or not reasons:
        return None
    what = "Start workers, and see the logs of those that are gone." if view.fleet.connected else "It goes on by itself."
    return StatusSummary(BAD, reasons[0][:1].upper() + reasons[0][1:], f"{what} Nothing is lost.")


def _disk_summary(view: StatusView) -> StatusSummary | None:
    if view.disk is None or view.disk.has_room:
        return None
    return StatusSummary(BAD, "Disk short", "No new recording is begun until there is room in temp_dir. Nothing is lost.")


def _poll_summary(view: StatusView) -> StatusSummary | None:
    if view.is_migration:
        return None
    polls = view.snapshot.polls
    if polls.error:
        since = (
            f"The last one that went well ended {format_span(view.at - polls.last_success)} ago. "
            if polls.last_success
            else ""
        )
        return StatusSummary(BAD, "The last poll failed", f"{since}It is tried again. {redact(polls.error)}")
    last = view.snapshot.started if polls.last_success is None else polls.last_success
    late = overdue_seconds(last, polls.seconds, view.at, view.interval_seconds, is_busy=view.is_busy)
    if late is not None:
        return StatusSummary(BAD, f"No poll has ended for {format_span(late)}", "See the log for why.")
    return StatusSummary(NOTE, "Starting", "The first poll has not ended yet.") if polls.last_success is None else None


def _set_aside_summary(view: StatusView) -> StatusSummary | None:
    count = view.counts.get(SET_ASIDE, 0)
    if not count:
        return None
    title = "Working; 1 recording is set aside" if count == 1 else f"Working; {count} recordings are set aside"
    return StatusSummary(NOTE, title, "They are not tried again by themselves: see Failures.")


def _dead_letter_summary(view: StatusView) -> StatusSummary | None:
    count = view.fleet.dead if view.fleet else 0
    if not count:
        return None
    title = "Working; 1 order is a dead letter" if count == 1 else f"Working; {count} orders are dead letters"
    return StatusSummary(NOTE, title, "No worker could read or finish them. What they ordered is set aside: see Failures.")


def _working_summary(view: StatusView) -> StatusSummary:
    title = "Working" if view.running else "Working; nothing to do at the moment"
    count = view.counts.get(RETRY, 0)
    failed = "1 recording has failed and is" if count == 1 else f"{count} recordings have failed and are"
    again = f" {failed} tried again: see Failures." if count else ""
    return StatusSummary(GOOD, title, f"Everything that is needed answers.{again}")
