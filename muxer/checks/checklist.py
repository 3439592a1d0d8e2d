"""A checklist: checks that run one after the other, each in its own time limit; what a check needs comes before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from muxer.checks.advice import advice_for
from muxer.errors import MuxerError

CHECK_TIMEOUT_SECONDS = 30.0


class CheckStatus(StrEnum):
    """What came of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line of the checklist: what was looked at, what was found, and what to do unless all is well."""

    status: CheckStatus
    check: str
    found: str
    advice: str = ""


CheckBody = Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """One check. ``needs``: names of checks, or options (``[section] option``), without which it makes no sense.
    ``section`` is the section of muxer.cfg that an error is about."""

    name: str
    body: CheckBody
    needs: tuple[str, ...] = ()
    section: str = ""
    seconds: float = CHECK_TIMEOUT_SECONDS


def passed_finding(check: str, found: str) -> Finding:
    """Return the line of something that is as it should be."""
    return Finding(CheckStatus.OK, check, found)


def warning_finding(check: str, found: str, advice: str) -> Finding:
    """Return the line of something that works, or may, and should be looked at."""
    return Finding(CheckStatus.WARNING, check, found, advice)


def failed_finding(check: str, found: str, advice: str) -> Finding:
    """Return the line of something that does not work."""
    return Finding(CheckStatus.FAILED, check, found, advice)


def skipped_finding(check: str, found: str, advice: str = "") -> Finding:
    """Return the line of something that was not looked at, or cannot be told."""
    return Finding(CheckStatus.SKIPPED, check, found, advice)


def run_checks(checks: Iterable[Check], unusable: Iterable[str]) -> Iterator[Finding]:
    """Given checks and the options that cannot be used, yield what each finds.

    The next check is asked for when the one before has ended, so that it may follow from what that one found.
    """
    bad = set(unusable)
    for check in checks:
        missing = next((need for need in check.needs if need in bad), None)
        if missing is not None:
            bad.add(check.name)
            yield skipped_finding(check.name, f"not looked at: needs {missing}")
            continue
        findings = _run_with_timeout(check)
        if any(one.status is CheckStatus.FAILED for one in findings):
            bad.add(check.name)
        bad.update(one.check for one in findings if one.status is CheckStatus.FAILED)
        yield from findings


def _run_with_timeout(check: Check) -> list[Finding]:
    """Run a check in a thread of its own, and leave that alone when its time is over."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.extend(_run_guarded(check)), name=check.name, daemon=True)
    thread.start()
    thread.join(check.seconds)
    if not thread.is_alive():
        return found
    advice = "something on the way swallows requests (a firewall, a machine that hangs): look there, then check again"
    return [failed_finding(check.name, f"no end within {check.seconds:.0f} s", advice)]


def _run_guarded(check: Check) -> list[Finding]:
    """Return what a check finds; an error ends it, and is what it found last."""
    found: list[Finding] = []
    try:
        found.extend(check.body())
    except (MuxerError, OSError) as error:
        found.append(failed_finding(check.name, str(error), advice_for(error, check.section)))
    except Exception as error:  # one check must not stop the others
        what = f"the check itself failed: {type(error).__name__}: {error}"
        found.append(failed_finding(check.name, what, "report this with the text; the other checks stand"))
    return found
