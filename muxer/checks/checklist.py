"""A checklist: checks that run one after the other, each with a time limit. A check comes after those that it needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from muxer.errors import MuxerError
from muxer.status.advice import advice_for, slow_advice

CHECK_TIMEOUT_SECONDS = 30.0


class CheckStatus(StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One line of the checklist: the check, what it found, and what to do."""

    status: CheckStatus
    check: str
    found: str
    advice: str = ""


CheckBody = Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class Check:
    """One check. Without what it `needs` (checks, options as ``[section] option``) it is skipped."""

    name: str
    body: CheckBody
    needs: tuple[str, ...] = ()
    section: str = ""
    seconds: float = CHECK_TIMEOUT_SECONDS


def passed_finding(check: str, found: str) -> Finding:
    """Return the line of a passed check."""
    return Finding(CheckStatus.OK, check, found)


def warning_finding(check: str, found: str, advice: str) -> Finding:
    """Return the line of something that may work but needs attention."""
    return Finding(CheckStatus.WARNING, check, found, advice)


def failed_finding(check: str, found: str, advice: str) -> Finding:
    """Return the line of a failed check."""
    return Finding(CheckStatus.FAILED, check, found, advice)


def skipped_finding(check: str, found: str, advice: str = "") -> Finding:
    """Return the line of a skipped check."""
    return Finding(CheckStatus.SKIPPED, check, found, advice)


def run_checks(
    checks: Iterable[Check], unusable: Iterable[str], reasons: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Finding]:
    """Yield the findings of each check, taken from `checks` after the one before.

    `unusable` are options without a valid value, `reasons` why, if the value itself is not the reason.
    """
    failed = set(unusable)
    for check in checks:
        missing = next((need for need in check.needs if need in failed), None)
        if missing is not None:
            failed.add(check.name)
            reason = f" ({reasons[missing]})" if missing in reasons else ""
            yield skipped_finding(check.name, f"not checked: needs {missing}{reason}")
            continue
        findings = _run_with_timeout(check)
        failures = [finding.check for finding in findings if finding.status is CheckStatus.FAILED]
        failed.update(failures, [check.name] if failures else [])
        yield from findings


def _run_with_timeout(check: Check) -> list[Finding]:
    """Run a check in a separate thread, which is abandoned at the time limit."""
    found: list[Finding] = []
    thread = threading.Thread(target=lambda: found.extend(_run_guarded(check)), name=check.name, daemon=True)
    thread.start()
    thread.join(check.seconds)
    if not thread.is_alive():
        return found
    return [failed_finding(check.name, f"not finished within {check.seconds:.0f} s", slow_advice(check.section))]


def _run_guarded(check: Check) -> list[Finding]:
    """Return the findings of a check. An error ends the check and becomes its last finding."""
    found: list[Finding] = []
    try:
        found.extend(check.body())
    except (MuxerError, OSError) as error:
        found.append(failed_finding(check.name, str(error), advice_for(error, check.section)))
    except Exception as error:  # One check must not stop the others.
        what = f"the check itself failed: {type(error).__name__}: {error}"
        found.append(failed_finding(check.name, what, "report this text; the other checks are not affected"))
    return found
