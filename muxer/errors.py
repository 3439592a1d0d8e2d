"""The error tree. Whether something is tried again is decided by the type of its error, never by its text.

* :class:`ConfigError`: the administrator must act; the process exits with code 2.
* :class:`Transient`: the world may change by itself; tried again later, without a bound on the attempts.
* :class:`Permanent`: the same attempt will most likely fail again; tried a bounded number of times, then set aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class MuxerError(Exception):
    """Base of every error that this program raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the configuration: where it is, what it says, what would be valid."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ConfigError(MuxerError):
    """The configuration cannot be used. Holds every problem that was found, not only the first, notes on what is odd, and
    the folder of the log where the configuration names a usable one."""

    def __init__(
        self, problems: Sequence[Problem], log_folder: Path | None = None, notes: Sequence[str] = ()
    ) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.log_folder = log_folder
        self.notes = tuple(notes)


class Transient(MuxerError):
    """It may work later. ``retry_after`` is the number of seconds that the other side asked for, if it did; ``service`` is
    the name of the other side, where one is to blame."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.service = ""


class ServiceUnavailable(Transient):
    """RWS, RCS or a storage did not answer, answered 5xx or 429, or broke off in the middle."""


class ServiceFailed(ServiceUnavailable):
    """A service met an error of its own (500, statusCode 4 and the like), perhaps with this request only."""


class UnreadableAnswer(ServiceUnavailable):
    """A service said that all is well, but in no form that can be read, such as the page of a proxy."""


class AccessDenied(Transient):
    """A service does not let us do what we need; the administrator may mend that at any time."""


class LoginRefused(AccessDenied):
    """401, or statusCode 20: user name or password are wrong."""


class Forbidden(AccessDenied):
    """403, or statusCode 3 or 5: the account may log in but lacks a permission."""


class PlaceClosed(AccessDenied):
    """403 of a WebDAV server: the account lacks the right to this folder or file; others there may be open."""


class MediaNotFound(Transient):
    """A media file is not where its metadata says; it may still be on its way. Tried again at the next poll."""


class LocalResourceError(Transient):
    """This machine lacks something for now, such as disk space."""


class StoredElsewhere(Transient):
    """Another muxer has stored the same muxed file, before ours or over it."""


class EncryptionMissing(Transient):
    """The result must be encrypted and RWS has no certificate that can be read; the administrator may mend that at any
    time."""


class Stopped(Transient):
    """The process is stopping, or the work was cancelled; nothing is wrong with the recording."""


class Permanent(MuxerError):
    """It will not get better by waiting."""


class RequestRejected(Permanent):
    """A service understood the request and refused it. ``status`` is HTTP's, ``code`` the envelope's statusCode."""

    def __init__(self, message: str, status: int = 0, code: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class NotFound(RequestRejected):
    """404, or statusCode 6."""


class AlreadyExists(RequestRejected):
    """409, or statusCode 18."""


class MetadataError(Permanent):
    """The metadata of a recording lack something, or contradict themselves."""


class MediaError(Permanent):
    """A media file is not what its metadata say: broken, empty, without picture or sound."""


class ToolError(Permanent):
    """An external program failed or gave a result that is not what was planned."""


class EncryptionError(Permanent):
    """The muxed file must be encrypted and cannot be. Clear media is never uploaded in its place."""
