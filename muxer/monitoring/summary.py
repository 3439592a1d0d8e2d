"""The state of the muxer in a title and a sentence: the box at the top of the status page. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from muxer.journal.correction_need import waiting_text
from muxer.journal.journal import RETRY, SET_ASIDE
from muxer.monitoring.rows import MAX_SERVICE_REASON_LENGTH
from muxer.monitoring.view import ServiceStatus, StatusView
from muxer.status.error_help import needs_correction
from muxer.status.fleet_status import BROKER, fleet_problems
from muxer.status.formatting import format_ago, format_span, format_time, redact, single_line
from muxer.status.poll_age import expected_seconds, overdue_seconds

GOOD, NOTE, BAD = "good", "note", "bad"
DEADLINE_TEXT = "Do that before they leave the window."
# Of more services, the table of services says what to do.
MAX_REMEDIES = 3


@dataclass(frozen=True)
class StatusSummary:
    """How serious the state is, its title, and what follows from it."""

    level: str
    title: str
    text: str


def summarize_view(view: StatusView) -> StatusSummary:
    """Return the most serious state that applies."""
    return (
        _outage_summary(view)
        or _fleet_summary(view)
        or _disk_summary(view)
        or _poll_summary(view)
        or _need_summary(view)
        or _set_aside_summary(view)
        or _dead_letter_summary(view)
        or _correction_summary(view)
        or _audit_summary(view)
        or _working_summary(view)
    )


def _outage_summary(view: StatusView) -> StatusSummary | None:
    down = [service for service in view.services if not service.up]
    if not down:
        return None
    since = min(service.since or view.at for service in down)
    names = " and ".join(single_line(service.name) for service in down[:3]) + (" and others" if len(down) > 3 else "")
    verb, pronoun = ("is", "it") if len(down) == 1 else ("are", "them")
    title = f"{names} {verb} unavailable since {format_time(since)} UTC ({format_span(view.at - since)})"
    lasting = [service for service in down if service.needs_correction]
    text = f"Recordings that need {pronoun} are paused and resume automatically. No recording is lost."
    if view.is_migration:
        text = "Recordings that fail because of this are not retried later. Run the migration again for them."
    elif lasting:
        text = (
            f"Recordings that need {pronoun} are paused until the cause is corrected. Do that before they leave the window."
        )
    explained = [*lasting, *(service for service in down if service.remedy and service not in lasting)]
    text += "".join(f" {_remedy_text(service, view)}" for service in explained[:MAX_REMEDIES])
    if not all(service.is_reached for service in down):
        text += " A service has never worked since the start of the muxer: run check, which shows the cause."
    if view.next_poll is not None and any(service.name != BROKER for service in down):  # RabbitMQ is tried all the time.
        text += f" The next attempt is the next poll, {_due_text(view)}."
    return StatusSummary(BAD, title, text)


def _remedy_text(service: ServiceStatus, view: StatusView) -> str:
    """Return what the administrator has to do about a service."""
    name = single_line(service.name)
    if not service.remedy:
        return f"{name}: see Services."
    return f"{name}: {redact(service.remedy, known=view.known_names, longest=MAX_SERVICE_REASON_LENGTH)}."


def _due_text(view: StatusView) -> str:
    """Return when the next poll starts."""
    due = view.next_poll
    return "now" if due is None or due <= view.at + 1 else format_ago(due, view.at)


def _fleet_summary(view: StatusView) -> StatusSummary | None:
    problems = fleet_problems(view.fleet) if view.fleet else ()
    if view.fleet is None or not problems:
        return None
    action = (
        "Start workers, and read the logs of those that have stopped."
        if view.fleet.connected
        else "The muxer reconnects automatically."
    )
    return StatusSummary(BAD, problems[0][:1].upper() + problems[0][1:], f"{action} No recording is lost.")


def _disk_summary(view: StatusView) -> StatusSummary | None:
    if view.disk is None or view.disk.has_room:
        return None
    text = "No new recording is started until the disk of temp_dir has enough space. No recording is lost."
    return StatusSummary(BAD, "Disk nearly full", text)


def _poll_summary(view: StatusView) -> StatusSummary | None:
    if view.is_migration:
        return None
    polls = view.snapshot.polls
    if polls.error:
        last = polls.last_success
        since = f"The last successful poll ended {format_span(view.at - last)} ago. " if last else ""
        return StatusSummary(
            BAD,
            "The last poll failed",
            f"{since}The next one follows automatically, {_due_text(view)}. {redact(polls.error, known=view.known_names)}",
        )
    last = view.snapshot.started if polls.last_success is None else polls.last_success
    took = expected_seconds(polls.seconds, polls.whole_seconds, view.poll_progress)
    late = overdue_seconds(last, took, view.at, view.interval_seconds, is_busy=view.is_busy)
    if late is not None:
        return StatusSummary(BAD, f"No poll has ended for {format_span(late)}", "The log contains the reason.")
    return StatusSummary(NOTE, "Starting", "The first poll has not ended yet.") if polls.last_success is None else None


def _need_summary(view: StatusView) -> StatusSummary | None:
    """Return that nothing is muxed until a person corrects something."""
    if view.correction is None:
        return None
    last = view.correction.last_muxed
    since = (
        "No recording has been muxed yet." if last is None else f"The last recording was muxed {format_ago(last, view.at)}."
    )
    text = f"{view.correction.cause}. {since} Correct the cause before the recordings leave the window: see Failures."
    return StatusSummary(BAD, f"Nothing is muxed; {view.correction.title}", text)


def _set_aside_summary(view: StatusView) -> StatusSummary | None:
    count = view.counts.get(SET_ASIDE, 0)
    if not count:
        return None
    title = "Working; 1 recording is set aside" if count == 1 else f"Working; {count} recordings are set aside"
    return StatusSummary(NOTE, title, "The muxer does not retry them automatically: see Failures.")


def _correction_summary(view: StatusView) -> StatusSummary | None:
    """Return that failures wait for a person, although they are retried."""
    count = sum(one.state == RETRY and needs_correction(one.code) for one in view.failures)
    if not count:
        return None
    text = "A permission, an option, a certificate or a folder must be corrected before they leave the window: see Failures."
    return StatusSummary(NOTE, f"Working; {waiting_text(count)}", text)


def _dead_letter_summary(view: StatusView) -> StatusSummary | None:
    count = view.fleet.dead if view.fleet else 0
    if not count:
        return None
    title = "Working; 1 task is a dead letter" if count == 1 else f"Working; {count} tasks are dead letters"
    return StatusSummary(NOTE, title, "No worker could read or finish them. Their recordings are set aside: see Failures.")


def _audit_summary(view: StatusView) -> StatusSummary | None:
    count = view.audit.finding_count
    if not count:
        return None
    title = "Working; the last audit has 1 finding" if count == 1 else f"Working; the last audit has {count} findings"
    return StatusSummary(NOTE, title, "The log names the command that shows them: recording-muxer audit.")


def _working_summary(view: StatusView) -> StatusSummary:
    title = "Working" if view.running else "Working; nothing to do at the moment"
    count = view.counts.get(RETRY, 0)
    failed = "1 recording has failed and is" if count == 1 else f"{count} recordings have failed and are"
    retries = f" {failed} retried automatically: see Failures." if count else ""
    polls = view.snapshot.polls
    is_empty = polls.last_success is not None and not any(polls.result.values()) and not view.is_migration
    hint = " The last poll found no call recordings: if there are any, run check, which shows the cause." if is_empty else ""
    return StatusSummary(GOOD, title, f"All services respond.{retries}{hint}")
