"""The result of the last scheduled audit, in a file beside the state file, for the status page, the metrics and `status`."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from muxer.system import files
from muxer.system.files import open_private
from muxer.system.json_codec import MALFORMED_ERRORS, from_json

AUDIT_FILE = "audit.json"


@dataclass(frozen=True)
class LastAudit:
    """An audit that ended at `at`, of calls that began from `start` to `end` (all in epoch seconds).

    `findings` has the number of each kind. `planned_end` is the end of the span that is being audited now, 0 when none is.
    """

    at: float = 0.0
    start: float = 0.0
    end: float = 0.0
    calls: int = 0
    files: int = 0
    findings: dict[str, int] = field(default_factory=dict)
    planned_end: float = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether any audit has ended."""
        return self.at > 0

    @property
    def finding_count(self) -> int:
        """The number of findings."""
        return sum(self.findings.values())


def read_last_audit(folder: Path) -> LastAudit:
    """Return what is known of audits in the temporary folder `folder`; nothing when there is no readable file."""
    with contextlib.suppress(OSError, ValueError, *MALFORMED_ERRORS):
        return from_json(LastAudit, json.loads((folder / AUDIT_FILE).read_text(encoding="utf-8")))
    return LastAudit()


def write_last_audit(folder: Path, audit: LastAudit) -> None:
    """Replace the file. Raises OSError."""
    fresh = folder / f"{AUDIT_FILE}.new"
    with open_private(fresh) as file:
        file.write(json.dumps(asdict(audit)).encode())
    files.replace_file(fresh, folder / AUDIT_FILE)
