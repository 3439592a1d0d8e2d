"""The error tree. The type of an error decides whether the work is retried, never its text.

The default :class:`Code` depends on the type; the code that raises an error with another remedy passes another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar


class Code(StrEnum):
    """The error codes, explained in docs/errors.md. A code never changes its meaning, and is never used again."""

    CONFIGURATION = "MUX-101"
    NO_RESPONSE = "MUX-201"
    INTERNAL_ERROR = "MUX-202"
    UNREADABLE_RESPONSE = "MUX-203"
    TLS = "MUX-204"
    BROKE_OFF = "MUX-205"
    READBACK_MISMATCH = "MUX-206"
    NOT_STORED = "MUX-207"
    NO_FOLDER = "MUX-208"
    ACCESS_DENIED = "MUX-211"
    AUTHENTICATION_FAILED = "MUX-212"
    FORBIDDEN = "MUX-213"
    PATH_FORBIDDEN = "MUX-214"
    NO_RCS = "MUX-215"
    NO_DECRYPT_PERMISSION = "MUX-216"
    FOREIGN_SERVER = "MUX-217"
    S3_OPTIONS = "MUX-218"
    STORAGE_SETUP = "MUX-219"
    UNKNOWN_CENTER = "MUX-220"
    MEDIA_NOT_FOUND = "MUX-221"
    MEDIA_INCOMPLETE = "MUX-222"
    NO_RESOURCES = "MUX-231"
    DISK_FULL = "MUX-232"
    STORED_BY_OTHER_MUXER = "MUX-241"
    NO_CERTIFICATE = "MUX-251"
    STOPPED = "MUX-261"
    REQUEST_REJECTED = "MUX-301"
    NOT_FOUND = "MUX-302"
    ALREADY_EXISTS = "MUX-303"
    QUERY_INCOMPLETE = "MUX-304"
    METADATA = "MUX-311"
    NO_START_TIME = "MUX-312"
    NO_LOCATION = "MUX-313"
    BAD_DESCRIPTOR = "MUX-314"
    NO_OVERLAP = "MUX-315"
    TOO_MUCH = "MUX-316"
    NO_SCREEN = "MUX-317"
    MEDIA = "MUX-321"
    EMPTY_FILE = "MUX-322"
    NO_MEDIA = "MUX-323"
    TRUNCATED = "MUX-324"
    NO_VIDEO = "MUX-325"
    NO_AUDIO = "MUX-326"
    NO_FRAME_TIMES = "MUX-327"
    NOT_VERIFIED = "MUX-328"
    DAMAGED = "MUX-329"
    TOOL = "MUX-331"
    ENCRYPTION = "MUX-341"
    BAD_CERTIFICATE = "MUX-342"
    UNKNOWN_ORDER = "MUX-351"
    NEVER_FINISHED = "MUX-352"
    SYSTEM = "MUX-401"
    UNEXPECTED = "MUX-901"


class MuxerError(Exception):
    """Base of every error that this program raises on purpose."""

    code: Code
    usual_code: ClassVar[Code] = Code.UNEXPECTED
    # What the administrator can do, with the option; the circuit breaker sets it for errors of services.
    advice = ""
    # Whether waiting does not help: a person has to correct something first.
    needs_correction = False
    # A response was too long, or took too long: a query for fewer recordings may work.
    is_too_long = has_timed_out = False
    # It is the response to a request that was sent again, because one before it had failed.
    was_retried = False

    def __init__(self, message: str, *, code: Code | None = None) -> None:
        super().__init__(message)
        self.code = code or self.usual_code


def error_code(error: BaseException) -> Code:
    """Return the code of any error."""
    if isinstance(error, MuxerError):
        return error.code
    return Code.SYSTEM if isinstance(error, OSError | MemoryError) else Code.UNEXPECTED


def describe_error(error: BaseException) -> str:
    """Return the message of any error, and what to do."""
    advice = getattr(error, "advice", "")
    return f"{error}; {advice}" if advice else str(error)


def format_error(error: BaseException) -> str:
    """Return the text of any error for logs and pages: code, type, message and what to do."""
    return f"{error_code(error)} {type(error).__name__}: {describe_error(error)}"


@dataclass(frozen=True)
class Problem:
    """One error in the configuration: `where` it is, and `what` would be valid."""

    where: str
    what: str
    # The origin of the value, such as its line in the file; empty when there is none.
    origin: str = ""
    # It may pass without a change of the configuration: the service is restarted.
    temporary: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"

    @property
    def full_text(self) -> str:
        """The text with the origin of the value."""
        return f"{self}{f' ({self.origin})' if self.origin else ''}"


class ConfigError(MuxerError):
    """The configuration cannot be used: exit code 2, or 1 when that may pass.

    Holds all problems, warnings (`notes`), the valid part of [logfile].
    """

    usual_code = Code.CONFIGURATION

    def __init__(
        self, problems: Sequence[Problem], logfile: Mapping[str, Any] | None = None, notes: Sequence[str] = ()
    ) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.logfile = logfile or {}
        self.notes = tuple(notes)

    @property
    def temporary(self) -> bool:
        """Whether all problems may pass without a change of the configuration."""
        return all(problem.temporary for problem in self.problems)


class Transient(MuxerError):
    """It may work later; retried without a limit.

    `began` is when the request began, in epoch seconds (infinite: unknown). `is_counted`: the circuit breaker counted the
    failure. `is_given_up`: the step was retried as often as allowed.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, code: Code | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after
        self.service = ""
        self.began = float("inf")
        self.is_counted = self.is_given_up = False


class ServiceUnavailable(Transient):
    """RWS, RCS or a storage did not respond, responded with 5xx or 429, or broke the response off."""

    usual_code = Code.NO_RESPONSE


class ServiceFailed(ServiceUnavailable):
    """A service had an internal error (500, statusCode 4 and the like), perhaps with this request only."""

    usual_code = Code.INTERNAL_ERROR


class UnreadableResponse(ServiceUnavailable):
    """A service reported success, but in a form that cannot be read, such as the page of a proxy."""

    usual_code = Code.UNREADABLE_RESPONSE


class FolderMissing(ServiceUnavailable):
    """The target folder of an upload does not exist; other folders of the server may."""

    usual_code = Code.NO_FOLDER


class AccessDenied(Transient):
    """A service denies a request; the administrator may fix that at any time."""

    usual_code = Code.ACCESS_DENIED
    needs_correction = True


class AuthenticationFailed(AccessDenied):
    """401, or statusCode 20: user name or password are wrong."""

    usual_code = Code.AUTHENTICATION_FAILED


class Forbidden(AccessDenied):
    """403, or statusCode 3 or 5: the account may log in but lacks a permission."""

    usual_code = Code.FORBIDDEN


class PathForbidden(AccessDenied):
    """403 of a storage: the account lacks the right to this folder or file; it may have access to others."""

    usual_code = Code.PATH_FORBIDDEN


class StorageMisconfigured(AccessDenied):
    """The server of a storage is not configured for the muxer; its administrator can change that at any time."""

    usual_code = Code.STORAGE_SETUP


class UnknownContactCenter(AccessDenied):
    """404 to a query of call recordings: RWS does not know the contact center, or the server is not RWS."""

    usual_code = Code.UNKNOWN_CENTER


class MediaNotFound(Transient):
    """A media file is not where its metadata says; it may still be uploaded. Retried at the next poll."""

    usual_code = Code.MEDIA_NOT_FOUND


class MediaIncomplete(MediaNotFound):
    """A media file is probably still being uploaded; retried at the next poll. `source` is its mediaId.

    `warned_once` is True when this was logged before, for the same length of the file.
    """

    usual_code = Code.MEDIA_INCOMPLETE

    def __init__(self, message: str, source: str = "", *, warned_once: bool = False) -> None:
        super().__init__(message)
        self.source = source
        self.warned_once = warned_once


class LocalResourceError(Transient):
    """This machine lacks something for now, such as disk space."""

    usual_code = Code.NO_RESOURCES


class StoredByOtherMuxer(Transient):
    """Another muxer has stored the same muxed file, before ours or over it."""

    usual_code = Code.STORED_BY_OTHER_MUXER


class EncryptionMissing(Transient):
    """The result must be encrypted, and RWS has no readable certificate; the administrator may fix that at any time."""

    usual_code = Code.NO_CERTIFICATE


class Stopped(Transient):
    """The process is stopping, or the work was cancelled; the recording is not the cause."""

    usual_code = Code.STOPPED


class Permanent(MuxerError):
    """Waiting does not help: retried a limited number of times, then set aside."""


class RequestRejected(Permanent):
    """A service understood the request and refused it. `status` is that of HTTP, `status_code` that of the envelope."""

    usual_code = Code.REQUEST_REJECTED

    def __init__(self, message: str, status: int = 0, status_code: int = 0, *, code: Code | None = None) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.status_code = status_code


class NotFound(RequestRejected):
    """404, or statusCode 6."""

    usual_code = Code.NOT_FOUND


class AlreadyExists(RequestRejected):
    """409, or statusCode 18."""

    usual_code = Code.ALREADY_EXISTS


class QueryIncomplete(Permanent):
    """RWS returns only a part of the call recordings of a query, or it is unknown whether it returns all."""

    usual_code = Code.QUERY_INCOMPLETE


class MetadataError(Permanent):
    """The metadata of a recording are incomplete or contradict each other."""

    usual_code = Code.METADATA


class MediaError(Permanent):
    """A media file is not what its metadata say. `source` is its mediaId, empty when the cause is not a single file."""

    usual_code = Code.MEDIA
    source = ""


class ToolError(Permanent):
    """An external program failed, or its result is not what was planned."""

    usual_code = Code.TOOL


class EncryptionError(Permanent):
    """The muxed file must be encrypted and cannot be. Clear media is never uploaded in its place."""

    usual_code = Code.ENCRYPTION


class OrderFailed(Permanent):
    """The fleet has given up a target: its task is unreadable, or its workers died. Set aside at once."""

    usual_code = Code.NEVER_FINISHED
