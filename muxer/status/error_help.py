"""The meaning, cause and remedy of each error code, for docs/errors.md, the commands and the status page."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from muxer.errors import Code


@dataclass(frozen=True)
class ErrorHelp:
    """Meaning, usual cause and remedy of an error; `again` is whether and when the muxer retries."""

    meaning: str
    cause: str
    remedy: str
    again: str


_BACKS_OFF = "automatically, after increasing delays"
_EACH_POLL = "automatically, at every poll"
_SET_ASIDE = "twice more, then set aside until its sources change or you run `retry`"
_RETRY = "no, until you run `retry`"
_NOTHING = "If it lasts only a few minutes, no action is needed."

HELP_BY_CODE: dict[Code, ErrorHelp] = {
    Code.CONFIGURATION: ErrorHelp(
        "The configuration or the command line cannot be used, or a program, folder or certificate that it names",
        "A misspelt value; a folder that does not exist; a temporary folder, log file or monitoring port that another instance holds",
        "The message names section, option, value and the valid values. Correct it; `check` reports all problems at once.",
        "no: the process ends with exit code 2",
    ),
    Code.NO_RESPONSE: ErrorHelp(
        "A service did not respond, or responded that it is temporarily unavailable (503, 429 and similar)",
        "It is down or overloaded, its address is wrong, or a firewall blocks the connection",
        f"{_NOTHING} Otherwise make sure that the service runs and is reachable from this machine: `check` tries each.",
        _BACKS_OFF,
    ),
    Code.INTERNAL_ERROR: ErrorHelp(
        "A service reported an internal error (500)",
        "A fault of the service, perhaps with this recording only",
        "See the log of the service at this time.",
        _BACKS_OFF,
    ),
    Code.UNREADABLE_RESPONSE: ErrorHelp(
        "A service reported success, but its response cannot be read",
        "Something else responds: a proxy, a login page, a web server on the same port",
        "Open the address that the message names in a browser, from this machine. Correct the address in `muxer.cfg`, and restart the muxer. A page of a proxy or a load balancer may be temporary.",
        _BACKS_OFF,
    ),
    Code.TLS: ErrorHelp(
        "The TLS connection failed",
        "`trusted_ca` lacks a certificate of the chain; the certificate is expired, or for another host name; http and https mixed up",
        "`check` shows the cause. For a certificate: put those of the certificate authority into the file of `trusted_ca`. For a port without TLS: write `http://` in `base_uri`, or the port that uses TLS.",
        _BACKS_OFF,
    ),
    Code.BROKE_OFF: ErrorHelp(
        "A transfer broke off or was too slow",
        "The network, or a service that was restarted",
        f"{_NOTHING} If it is always the same file, check whether it can be read in its storage.",
        _BACKS_OFF,
    ),
    Code.READBACK_MISMATCH: ErrorHelp(
        "RWS accepted the metadata of a muxed file but does not return them",
        "RWS is slow, or drops fields that it does not know",
        "If it lasts, compare with sections 5 and 9 of docs/gir-api.md, and read the log of RWS.",
        _BACKS_OFF,
    ),
    Code.NOT_STORED: ErrorHelp(
        "A storage does not contain a file that was uploaded to it",
        "Its disk is full, it is read-only for this account, or something changes files in transit",
        "Upload a file there by hand with the same account, and compare its length.",
        _BACKS_OFF,
    ),
    Code.NO_FOLDER: ErrorHelp(
        "The folder of a WebDAV server into which a muxed file is to be uploaded does not exist",
        "It was removed or renamed, or the path in the metadata of the screen recording is wrong",
        "Create the folder that the message names on the server, or correct the path in the recorders. Other folders are not affected.",
        _BACKS_OFF,
    ),
    Code.ACCESS_DENIED: ErrorHelp(
        "A permission or an option is missing",
        "The account lacks the permission that the message names",
        "Grant it to the account. No restart is needed.",
        _BACKS_OFF,
    ),
    Code.AUTHENTICATION_FAILED: ErrorHelp(
        "User name, password or keys are wrong",
        "A password was changed; the wrong section of `muxer.cfg`; an old value in the environment, which overrides the file",
        "`config` shows where the password comes from. Correct it there, or store it with `encryptPassword.py`, and restart the muxer. The muxer pauses requests to the service for a minute, so that the account is not locked.",
        _BACKS_OFF,
    ),
    Code.FORBIDDEN: ErrorHelp(
        "The account is authenticated but not authorized (403)",
        "A permission is missing",
        "Grant the account the permission that the message names. No restart is needed.",
        _BACKS_OFF,
    ),
    Code.PATH_FORBIDDEN: ErrorHelp(
        "A storage denies access to this folder or file",
        "The account of `[webdav]` may not read or write there; some servers respond 401 to a read-only account. The keys of `[s3]` may not read the object, or it is archived",
        "Grant it the rights to read, write, rename and delete. No restart is needed. Other folders are not affected. For S3 see docs/s3.md.",
        _BACKS_OFF,
    ),
    Code.NO_RCS: ErrorHelp(
        "A source is encrypted, and no Recording Crypto Server is configured",
        "`[rcs] base_uri` is empty",
        "Configure `[rcs]` and restart the muxer.",
        _BACKS_OFF,
    ),
    Code.NO_DECRYPT_PERMISSION: ErrorHelp(
        "RCS does not decrypt for this user",
        "The user of `[rcs]` lacks the media decrypt permission, or belongs to another contact center",
        "Grant it the permission. No restart is needed. After a change of the user in `[rcs]`, restart the muxer.",
        _BACKS_OFF,
    ),
    Code.FOREIGN_SERVER: ErrorHelp(
        "The metadata name a WebDAV server to which the muxer does not send its credentials",
        "A server that does not seem to belong to this site, or a wrong address in the metadata",
        "If it is one of yours, add it to `[webdav] hosts` and restart the muxer. If not, find out who wrote the metadata.",
        _BACKS_OFF,
    ),
    Code.S3_OPTIONS: ErrorHelp(
        "The store cannot be used with the options of `[s3]`, or with the clock of this machine",
        "Keys are missing or incomplete; the store requires another region; http and https mixed up, or a proxy responds instead of the store; a wrong clock",
        "The message names the option. See `access_key_id`, `secret_access_key`, `region` and `endpoint_url` in docs/s3.md. After a change of an option, restart the muxer.",
        _BACKS_OFF,
    ),
    Code.STORAGE_SETUP: ErrorHelp(
        "A storage server lacks a setting that the muxer needs",
        "A limit for the size of uploads (1 MB in nginx unless `client_max_body_size` is set); `MultiViews` in Apache; WebDAV "
        "that is not enabled for the folder; a proxy that blocks WebDAV requests",
        "The message names the setting. Change it on the server, then run `check --write`. No recording is set aside meanwhile.",
        _BACKS_OFF,
    ),
    Code.UNKNOWN_CENTER: ErrorHelp(
        "RWS does not know the contact center: it responds with 404 to the query of the call recordings",
        "A misspelt `[htcc] contact_center_id`; `[htcc] base_uri` with a wrong path, or the address of another server",
        "Correct `[htcc] contact_center_id` and restart the muxer. If it is right, correct `[htcc] base_uri`: `check` shows what responds there.",
        _BACKS_OFF,
    ),
    Code.MEDIA_NOT_FOUND: ErrorHelp(
        "A media file does not exist at the location in its metadata",
        "It is still being uploaded, or was deleted",
        "Look for the file that the message names, in the storage and on the recorder. Upload it from the recorder if it is missing. No action is needed while it may still be uploaded.",
        "at every poll in the first hour, then after a tenth of the time that the file has been missing, up to an hour",
    ),
    Code.MEDIA_INCOMPLETE: ErrorHelp(
        "A media file is empty, truncated, or shorter than its metadata state",
        "It is still being uploaded; or its upload was broken off, or the recorder stopped early",
        "No action is needed while it may still be uploaded. When it no longer grows, upload it again from the recorder. The muxer "
        "uses the available part after `[advanced] incomplete_after` minutes; set 0 to use it at once.",
        _EACH_POLL,
    ),
    Code.NO_RESOURCES: ErrorHelp(
        "This machine lacks memory or another resource that a program needs",
        "Too many workers for this machine; a program that was removed",
        "Lower `worker_threads` or add memory; make sure that ffmpeg and openssl are still installed.",
        _BACKS_OFF,
    ),
    Code.DISK_FULL: ErrorHelp(
        "The disk of the temporary folder does not have enough space",
        "Large recordings, many workers, or other files on that disk",
        "Free space, or move `temp_dir` to a larger disk.",
        _BACKS_OFF,
    ),
    Code.STORED_BY_OTHER_MUXER: ErrorHelp(
        "Another muxer works on the same file",
        "Poll windows of several muxers that overlap",
        "No action is needed. If it is frequent, make the windows exclusive to avoid double work.",
        _BACKS_OFF,
    ),
    Code.NO_CERTIFICATE: ErrorHelp(
        "The muxed file must be encrypted, and RWS has no readable certificate for it",
        "The encryption settings of the contact center are incomplete",
        "Configure the screen recording encryption in RWS. The muxer never uploads unencrypted media instead.",
        _BACKS_OFF,
    ),
    Code.STOPPED: ErrorHelp(
        "The process was stopped while it processed the recording",
        "A stop of the muxer",
        "No action is needed.",
        "after the next start",
    ),
    Code.REQUEST_REJECTED: ErrorHelp(
        "A service understood a request and rejected it",
        "It does not know a parameter, or expects another format",
        "Read the error text of the service; its administrator can find the reason in its log at this time.",
        _SET_ASIDE,
    ),
    Code.NOT_FOUND: ErrorHelp(
        "RWS no longer knows the recording",
        "It was deleted or purged",
        "Check in RWS whether it still exists.",
        _SET_ASIDE,
    ),
    Code.ALREADY_EXISTS: ErrorHelp(
        "RWS reports that an entry exists already that should not exist",
        "Another program writes to the same recording",
        "Check the metadata of the recording in RWS.",
        _SET_ASIDE,
    ),
    Code.QUERY_INCOMPLETE: ErrorHelp(
        "RWS returns only a part of the call recordings of a query, or it is unknown whether it returns all",
        "The muxer does not understand how this RWS continues a page, and the calls are too dense, or too long, to read in time windows; "
        "or RWS rejects a page repeatedly",
        "Raise `[advanced] pagination` as far as RWS allows. Run `check`: it shows the keys of the response. Compare them with "
        "docs/gir-api.md, sections 3 and 9. Recordings that were found are muxed.",
        "at the next poll; a migration ends with exit code 4",
    ),
    Code.METADATA: ErrorHelp(
        "The metadata of a recording are incomplete or contradictory",
        "The recorder, or a program that changed them",
        "Check them in RWS: the recording cannot be muxed with them.",
        _SET_ASIDE,
    ),
    Code.NO_START_TIME: ErrorHelp(
        "A media file has no readable start time",
        "The recorder did not write it",
        "Correct `startTime` in the metadata; without it the position of the file is unknown.",
        _SET_ASIDE,
    ),
    Code.NO_LOCATION: ErrorHelp(
        "The metadata do not contain the location of a media file",
        "Neither a media descriptor nor a `mediaUri`",
        "Check the metadata of the file in RWS and the settings of the recorder.",
        _SET_ASIDE,
    ),
    Code.BAD_DESCRIPTOR: ErrorHelp(
        "A media descriptor cannot be used",
        "It names no folder of a storage, a path outside its folder, or an unknown type of storage",
        "Check the descriptor in RWS; the message shows the wrong part.",
        _SET_ASIDE,
    ),
    Code.NO_OVERLAP: ErrorHelp(
        "No screen file overlaps the audio file",
        "The clock of a recorder was wrong, or the files are much shorter than their metadata state",
        "`plan` draws the position of each file. Correct the start times in RWS.",
        _SET_ASIDE,
    ),
    Code.TOO_MUCH: ErrorHelp(
        "A recording exceeds the limits of the muxer",
        "More media files, frames, pixels or hours than a real call has",
        "Check whether the metadata and the file are correct. SECURITY.md lists the limits.",
        _SET_ASIDE,
    ),
    Code.NO_SCREEN: ErrorHelp(
        "A command was given a call recording that has no screen recording, or none that can be muxed",
        "The screen was not recorded, or its files arrive later",
        "No action is needed: a running muxer looks at the call again while it is in the window. If the screen was recorded, check whether RWS has its screen recording.",
        "the command: no; the muxer: at every poll that reads the call",
    ),
    Code.MEDIA: ErrorHelp(
        "A media file cannot be processed",
        "It is damaged, or in a format that ffmpeg does not read",
        "Play it. If it is damaged there, too, the muxer cannot repair it; if it plays, report it with the lines of the log.",
        _SET_ASIDE,
    ),
    Code.EMPTY_FILE: ErrorHelp(
        "A media file is empty",
        "Its upload failed, or its disk was full",
        "Upload it again from the recorder, then `retry`.",
        _SET_ASIDE,
    ),
    Code.NO_MEDIA: ErrorHelp(
        "A file is not a media file",
        "An interrupted upload (`moov atom not found`); a page of a proxy or a text instead of the file; an encrypted file without that in its metadata; another key than the one it was encrypted with",
        "Look at its first bytes. If it is a media file, upload it again from the recorder, then `retry`; if not, check whether its metadata contain `pkcs7`.",
        _SET_ASIDE,
    ),
    Code.TRUNCATED: ErrorHelp(
        "A media file is truncated",
        "Its upload was interrupted",
        "Upload it again from the recorder, then `retry`.",
        _SET_ASIDE,
    ),
    Code.NO_VIDEO: ErrorHelp(
        "A screen file has no video",
        "The recorder captured nothing",
        "Play it. If it has no video, it cannot be muxed.",
        _SET_ASIDE,
    ),
    Code.NO_AUDIO: ErrorHelp(
        "An audio file has no usable audio",
        "The recorder captured nothing; the file has another format than its metadata state, or an unsupported one, such as free-format MP3; or more than a tenth of it cannot be decoded",
        "Play it.",
        _SET_ASIDE,
    ),
    Code.NO_FRAME_TIMES: ErrorHelp(
        "A screen file has no presentation times of its frames",
        "An old or damaged container",
        "Play it; replace it with a file converted to MP4, then `retry`.",
        _SET_ASIDE,
    ),
    Code.NOT_VERIFIED: ErrorHelp(
        "The muxed file differs from its plan, even with everything re-encoded",
        "Sources that decode differently each time; a fault of this program",
        "Nothing was uploaded. Report it with the lines of the log and the output of `plan`.",
        _SET_ASIDE,
    ),
    Code.DAMAGED: ErrorHelp(
        "A screen file is damaged: more than a tenth of its frames cannot be decoded",
        "Errors of the storage, the transfer or the recorder",
        "Play it. Upload it again from the recorder, then `retry`.",
        _SET_ASIDE,
    ),
    Code.TOOL: ErrorHelp(
        "A program failed or took too long",
        "A broken source, or a build of ffmpeg or openssl that lacks something",
        "The log contains the output of the program. `check` runs each program once.",
        _SET_ASIDE,
    ),
    Code.ENCRYPTION: ErrorHelp(
        "The muxed file could not be encrypted",
        "openssl failed, or there is no certificate to encrypt for",
        "Read the error text of openssl. The muxer never uploads unencrypted media instead.",
        _SET_ASIDE,
    ),
    Code.BAD_CERTIFICATE: ErrorHelp(
        "An encryption certificate of RWS cannot be used",
        "It is damaged or contains no RSA key",
        "Replace the certificate that the message names, in the encryption settings of RWS, then `retry`.",
        _SET_ASIDE,
    ),
    Code.UNKNOWN_ORDER: ErrorHelp(
        "A worker of the fleet could not read a task",
        "It runs another version of the muxer than the poller",
        "Install the same version everywhere (`status` shows that of each worker), then `retry`.",
        _RETRY,
    ),
    Code.NEVER_FINISHED: ErrorHelp(
        "A task was delivered to workers of the fleet repeatedly, and none of them finished it",
        "A recording that makes its worker crash, for example because of too little memory; workers that restart again and again",
        "Read the end of the logs of the workers, and the system log for killed processes. Fix the cause, then `retry`.",
        _RETRY,
    ),
    Code.SYSTEM: ErrorHelp(
        "The operating system reported an error",
        "Permissions on `temp_dir`, a failing disk, too little memory",
        "Read the error text. `check` checks the folders.",
        _BACKS_OFF,
    ),
    Code.UNEXPECTED: ErrorHelp(
        "An unexpected error",
        "A fault of this program",
        "Report it with the lines of the log and their traceback.",
        _SET_ASIDE,
    ),
}

# Errors that last until a person corrects something: the muxer retries, but waiting does not help.
_CORRECTION_CODES = frozenset(
    {
        *(Code.TLS, Code.NO_FOLDER, Code.ACCESS_DENIED, Code.AUTHENTICATION_FAILED, Code.FORBIDDEN, Code.PATH_FORBIDDEN),
        *(Code.NO_RCS, Code.NO_DECRYPT_PERMISSION, Code.FOREIGN_SERVER, Code.S3_OPTIONS, Code.STORAGE_SETUP),
        *(Code.UNKNOWN_CENTER, Code.NO_CERTIFICATE),
    }
)


def needs_correction(code: str) -> bool:
    """Whether the error with a code lasts until a person corrects something."""
    return code in _CORRECTION_CODES


def help_for(code: str) -> str:
    """Return the remedy for a code; for an unknown code, that of an unexpected error."""
    return HELP_BY_CODE[Code(code) if code in set(Code) else Code.UNEXPECTED].remedy


def render_page() -> str:
    """Return docs/errors.md."""
    head = (
        "# Errors\n\n"
        "You find the codes `MUX-…` in the log (field `code`), in `recording-muxer failed` and on the status page.\n"
        "The meaning of a code never changes.\n"
        "[Reliability](reliability.md#what-is-tried-again) explains which errors set a recording aside and which pause a service.\n"
    )
    return head + "".join(_render_section(code, HELP_BY_CODE[code]) for code in Code)


def _render_section(code: Code, entry: ErrorHelp) -> str:
    return (
        f"\n## {code}\n\n{entry.meaning}.\n\n"
        f"- **Usual cause**: {entry.cause}.\n- **What to do**: {entry.remedy}\n- **Retry**: {entry.again}.\n"
    )


if __name__ == "__main__":
    sys.stdout.write(render_page())
