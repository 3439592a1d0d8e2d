"""What to do about an error, by its type: one sentence each."""

from __future__ import annotations

_WAIT = "Nothing to do if it comes back soon. Else see whether the service runs and can be reached from this machine."
_REFUSED = "See what the service says; with its log at this time, its administrator can tell why."
_DISK = "Make room in temp_dir, and see that the muxer's account may use it."
_UNEXPECTED = "Nobody expected this error. The log has all of it; please report it."

ADVICE = {
    "ServiceUnavailable": _WAIT,
    "ServiceFailed": "See the log of the service at this time: it met an error of its own.",
    "UnreadableAnswer": "See whether something answers in place of the service, such as a proxy or a login page.",
    "AccessDenied": "Give the muxer's account the right that is missing, or see the section of the service in muxer.cfg.",
    "LoginRefused": "See user name and password of this service in muxer.cfg, then restart the muxer.",
    "Forbidden": "Give the muxer's account of this service the permission that is missing.",
    "PlaceClosed": "Give the account of [webdav] the right to read and write this folder.",
    "MediaNotFound": "Nothing to do while the file may be on its way. Later, see whether the recorder has uploaded it.",
    "LocalResourceError": _DISK,
    "StoredElsewhere": "Nothing to do: another muxer works on the same file.",
    "EncryptionMissing": "See the encryption certificates in the settings of RWS.",
    "RequestRejected": _REFUSED,
    "NotFound": "See in RWS whether the recording is still there.",
    "AlreadyExists": _REFUSED,
    "MetadataError": "See the metadata of the recording in RWS: as they are, no muxed file can be made.",
    "MediaError": "Play the source files. What is broken there cannot be mended here; if they play, please report it.",
    "ToolError": "See the log for what the program said; see that ffmpeg and openssl are whole.",
    "EncryptionError": "See the encryption certificates in the settings of RWS: one of them cannot be used.",
    "OSError": _DISK,
    "PermissionError": _DISK,
    "MemoryError": "Give this machine more memory, or the muxer fewer worker_threads.",
}


def advice(kind: str) -> str:
    """Given the type of an error, return what to do about it."""
    return ADVICE.get(kind, _UNEXPECTED)
