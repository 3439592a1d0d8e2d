"""What each code of a failure means and what to do about it: one table for docs/errors.md, the commands and the status page."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from muxer.errors import Code


@dataclass(frozen=True)
class ErrorHelp:
    """What has happened, what usually is the cause, and what to do; ``again`` says whether and when it is tried again."""

    meaning: str
    cause: str
    remedy: str
    again: str


_BACKS_OFF = "by itself, after a growing time"
_EACH_POLL = "by itself, at every poll"
_SET_ASIDE = "twice more, then set aside until its sources change, or `retry`"
_RETRY = "no, until `retry`"
_NOTHING = "Nothing to do while it lasts for minutes."

HELP_BY_CODE: dict[Code, ErrorHelp] = {
    Code.CONFIGURATION: ErrorHelp(
        "The configuration or the command line cannot be used, or a program, a folder or a certificate that it names",
        "A misspelt value; a folder that does not exist; a temporary folder, log file or monitoring port that another instance holds",
        "The message names section, option, value and what is valid. Correct it; `check` looks at everything at once.",
        "no: the process ends with exit code 2",
    ),
    Code.NO_RESPONSE: ErrorHelp(
        "A service did not answer, or said that it cannot answer now (503, 429 and the like)",
        "It is down or overloaded, its address is wrong, or a firewall stands between",
        f"{_NOTHING} Else see whether the service runs and can be reached from this machine: `check` tries each.",
        _BACKS_OFF,
    ),
    Code.INTERNAL_ERROR: ErrorHelp(
        "A service met an error of its own (500)",
        "A fault of the service, perhaps with this recording only",
        "See the log of the service at this time.",
        _BACKS_OFF,
    ),
    Code.UNREADABLE_RESPONSE: ErrorHelp(
        "A service said that all is well, but not in a form that can be read",
        "Something answers in its place: a proxy, a login page, a web server on the same port",
        "Open the address that the message names in a browser, from this machine. Correct the address in `muxer.cfg`.",
        _BACKS_OFF,
    ),
    Code.TLS: ErrorHelp(
        "No secure connection could be made",
        "`trusted_ca` lacks a certificate of the chain; the certificate is expired, or for another host name; http and https mixed up",
        "`check` says which certificate is wrong and why. Put the certificates of the authority into the file of `trusted_ca`.",
        _BACKS_OFF,
    ),
    Code.BROKE_OFF: ErrorHelp(
        "A transfer ended before its end, or was too slow",
        "The network, or a service that was restarted",
        f"{_NOTHING} If it is always the same file, see whether it can be read in its storage.",
        _BACKS_OFF,
    ),
    Code.READBACK_MISMATCH: ErrorHelp(
        "RWS took the metadata of a muxed file and does not show them",
        "RWS lags, or drops what it does not know",
        "If it lasts, compare with section 5 and 9 of the page on RWS, and see the log of RWS.",
        _BACKS_OFF,
    ),
    Code.NOT_STORED: ErrorHelp(
        "A storage does not hold what was uploaded to it",
        "Its disk is full, it is read-only for this account, or something changes files on their way",
        "Upload a file there by hand with the same account, and compare its length.",
        _BACKS_OFF,
    ),
    Code.NO_FOLDER: ErrorHelp(
        "The folder of a WebDAV server into which a muxed file is to be uploaded does not exist",
        "It was removed or renamed, or the path in the metadata of the screen recording is wrong",
        "Create the folder that the message names on the server, or correct the path in the recorders. Other folders go on.",
        _BACKS_OFF,
    ),
    Code.ACCESS_DENIED: ErrorHelp(
        "A right or an option is missing",
        "The account lacks a permission that the message names",
        "Give it to the account.",
        _BACKS_OFF,
    ),
    Code.AUTHENTICATION_FAILED: ErrorHelp(
        "User name, password or keys are wrong",
        "A password was changed; the wrong section of `muxer.cfg`; an old value in the environment, which goes before the file",
        "`config` shows where the password comes from. Correct it and restart the muxer. Nothing is sent to the service for a minute, so that the account is not locked.",
        _BACKS_OFF,
    ),
    Code.FORBIDDEN: ErrorHelp(
        "The account may log in, but not do this (403)",
        "A permission is missing",
        "Give the account the permission that the message names.",
        _BACKS_OFF,
    ),
    Code.PATH_FORBIDDEN: ErrorHelp(
        "A storage refuses this folder or file",
        "The account of `[webdav]` may not read or write there; some servers answer 401 to an account that may only read. The keys of `[s3]` may not read the object, or it is archived",
        "Give it the right to read, write, rename and delete. Other folders go on. For S3 see the page on S3.",
        _BACKS_OFF,
    ),
    Code.NO_RCS: ErrorHelp(
        "A source is encrypted, and no Recording Crypto Server is configured",
        "`[rcs] base_uri` is empty",
        "Configure `[rcs]`, and restart the muxer.",
        _BACKS_OFF,
    ),
    Code.NO_DECRYPT_PERMISSION: ErrorHelp(
        "RCS does not decrypt for this user",
        "The user of `[rcs]` lacks the media decrypt permission, or is of another contact center",
        "Give it the permission.",
        _BACKS_OFF,
    ),
    Code.FOREIGN_SERVER: ErrorHelp(
        "The metadata name a WebDAV server to which the account is not given",
        "A server that is not of this site as far as can be told, or a wrong address in the metadata",
        "If it is one of yours, name it in `[webdav] hosts`. If not, see who wrote the metadata.",
        _BACKS_OFF,
    ),
    Code.S3_OPTIONS: ErrorHelp(
        "The store cannot be used with the options of `[s3]`, or with the clock of this machine",
        "Keys are missing or incomplete; the store wants another region; http and https mixed up, or a proxy answers in place of the store; a wrong clock",
        "The message names the option. See `access_key_id`, `secret_access_key`, `region` and `endpoint_url`, and the page on S3.",
        _BACKS_OFF,
    ),
    Code.STORAGE_SETUP: ErrorHelp(
        "The server of a storage is not set up for what the muxer needs",
        "A limit for the size of uploads (1 MB in nginx unless `client_max_body_size` is set); `MultiViews` in Apache; WebDAV "
        "that is not enabled for the folder; a proxy that does not let WebDAV requests through",
        "The message names the setting. Change it on the server, then run `check --write`. Nothing is set aside meanwhile.",
        _BACKS_OFF,
    ),
    Code.MEDIA_NOT_FOUND: ErrorHelp(
        "A media file is not where its metadata say",
        "It is still being uploaded, or was deleted",
        "Nothing to do while it may be on its way. If it lasts, see whether the recorder has uploaded it.",
        _EACH_POLL,
    ),
    Code.MEDIA_INCOMPLETE: ErrorHelp(
        "A media file is empty, breaks off, or is shorter than its metadata promise",
        "It is still being uploaded; or its upload was broken off, or the recorder stopped early",
        "No action is needed while it may be on its way. When it no longer grows, upload it again from the recorder. The muxer "
        "uses what is there after `[advanced] incomplete_after` minutes; set 0 to use it at once.",
        _EACH_POLL,
    ),
    Code.NO_RESOURCES: ErrorHelp(
        "This machine lacks memory or something else that a program needs",
        "Too many workers for this machine; a program that was removed",
        "Lower `worker_threads`, or give the machine more; see that ffmpeg and openssl are where they were.",
        _BACKS_OFF,
    ),
    Code.DISK_FULL: ErrorHelp(
        "The disk of the temporary folder has not enough room",
        "Large recordings, many workers, or other files on that disk",
        "Make room, or put `temp_dir` on a larger disk.",
        _BACKS_OFF,
    ),
    Code.STORED_BY_OTHER_MUXER: ErrorHelp(
        "Another muxer works on the same file",
        "Windows that overlap",
        "Nothing to do. If it is often seen, make the windows exclusive: double work is done.",
        _BACKS_OFF,
    ),
    Code.NO_CERTIFICATE: ErrorHelp(
        "The result must be encrypted, and RWS has no certificate for it that can be read",
        "The encryption settings of the contact center are incomplete",
        "Configure the screen recording encryption in RWS. Clear media is never uploaded in its place.",
        _BACKS_OFF,
    ),
    Code.STOPPED: ErrorHelp(
        "The process was stopped in the middle of the recording",
        "A stop",
        "Nothing to do.",
        "after the next start",
    ),
    Code.REQUEST_REJECTED: ErrorHelp(
        "A service understood a request and refused it",
        "It does not know a parameter, or wants another form",
        "See what the service says; with its log at this time, its administrator can tell why.",
        _SET_ASIDE,
    ),
    Code.NOT_FOUND: ErrorHelp(
        "RWS does not know the recording any more",
        "It was deleted, or purged",
        "See in RWS whether it is still there.",
        _SET_ASIDE,
    ),
    Code.ALREADY_EXISTS: ErrorHelp(
        "RWS says that something is there already, where it should not be",
        "Another program writes to the same recording",
        "See the metadata of the recording in RWS.",
        _SET_ASIDE,
    ),
    Code.QUERY_INCOMPLETE: ErrorHelp(
        "RWS shows only a part of the call recordings that a query finds, or it is not known whether it shows all",
        "The muxer does not understand how this RWS continues a page, and the calls are too dense, or too long, to read in time windows; "
        "or RWS refuses a page again and again",
        "Raise `[advanced] pagination` as far as RWS allows. Run `check`: it names the keys of the response. Compare them with "
        "docs/gir-api.md, sections 3 and 9. What was found is muxed.",
        "at the next poll; a migration ends with exit code 4",
    ),
    Code.METADATA: ErrorHelp(
        "The metadata of a recording lack something, or contradict themselves",
        "The recorder, or a program that has changed them",
        "See them in RWS: as they are, no muxed file can be made.",
        _SET_ASIDE,
    ),
    Code.NO_START_TIME: ErrorHelp(
        "A media file has no start time that can be read",
        "The recorder did not write it",
        "Correct `startTime` in the metadata; without it nobody knows where the file belongs.",
        _SET_ASIDE,
    ),
    Code.NO_LOCATION: ErrorHelp(
        "The metadata do not say where a media file lies",
        "Neither a media descriptor nor a `mediaUri`",
        "See the metadata of the file in RWS, and the settings of the recorder.",
        _SET_ASIDE,
    ),
    Code.BAD_DESCRIPTOR: ErrorHelp(
        "A media descriptor cannot be used",
        "It names no folder of a storage, a path outside its folder, or a kind of storage that is not known",
        "See the descriptor in RWS; the message shows the part that is wrong.",
        _SET_ASIDE,
    ),
    Code.NO_OVERLAP: ErrorHelp(
        "No screen file shows anything within the time of the audio file",
        "The clock of a recorder was wrong, or the files are much shorter than their metadata say",
        "`plan` draws where each file lies. Correct the start times in RWS.",
        _SET_ASIDE,
    ),
    Code.TOO_MUCH: ErrorHelp(
        "A recording is larger than the muxer works on",
        "More media files, frames, pixels or hours than a real call has",
        "See whether the metadata or the file are what they should be. The limits stand in the page on security.",
        _SET_ASIDE,
    ),
    Code.MEDIA: ErrorHelp(
        "A media file cannot be worked on",
        "It is broken in its middle, or of a kind that ffmpeg does not read",
        "Play it. What is broken there cannot be mended here; if it plays, report it with the lines of the log.",
        _SET_ASIDE,
    ),
    Code.EMPTY_FILE: ErrorHelp(
        "A media file is empty",
        "Its upload failed, or its disk was full",
        "Upload it again from the recorder, then `retry`.",
        _SET_ASIDE,
    ),
    Code.NO_MEDIA: ErrorHelp(
        "A file is no media file",
        "An upload that was broken off (`moov atom not found`); a page of a proxy or a text in its place; an encrypted file whose metadata do not say so; another key than the file was made with",
        "Look at its first bytes. If it is a media file, upload it again from the recorder, then `retry`; if not, see whether its metadata have `pkcs7`.",
        _SET_ASIDE,
    ),
    Code.TRUNCATED: ErrorHelp(
        "A media file ends before its end",
        "Its upload was broken off",
        "Upload it again from the recorder, then `retry`.",
        _SET_ASIDE,
    ),
    Code.NO_VIDEO: ErrorHelp(
        "A screen file has no picture",
        "The recorder captured nothing",
        "Play it. If it has no picture, nothing can be muxed.",
        _SET_ASIDE,
    ),
    Code.NO_AUDIO: ErrorHelp(
        "An audio file has no sound that can be used",
        "The recorder captured nothing; the file is of another kind than its metadata say, or of a form that is not supported, such as free-format MP3; or more than a tenth of it cannot be decoded",
        "Play it.",
        _SET_ASIDE,
    ),
    Code.NO_FRAME_TIMES: ErrorHelp(
        "A screen file does not say when its frames are shown",
        "An old container, or a broken one",
        "Play it; convert it to MP4, and put it in its place, then `retry`.",
        _SET_ASIDE,
    ),
    Code.NOT_VERIFIED: ErrorHelp(
        "The muxed file was not what was planned, not even with everything re-encoded",
        "Sources that players show differently each time; a fault of this program",
        "Nothing was uploaded. Report it, with the lines of the log and what `plan` prints.",
        _SET_ASIDE,
    ),
    Code.DAMAGED: ErrorHelp(
        "A screen file is damaged: more than a tenth of its frames cannot be decoded",
        "It was stored or transferred with errors, or recorded by a recorder that failed",
        "Play it. Upload it again from the recorder, then `retry`.",
        _SET_ASIDE,
    ),
    Code.TOOL: ErrorHelp(
        "A program failed, or took too long",
        "A broken source, or a build of ffmpeg or openssl that lacks something",
        "The log has what the program said. `check` runs each once.",
        _SET_ASIDE,
    ),
    Code.ENCRYPTION: ErrorHelp(
        "The muxed file could not be encrypted",
        "openssl failed, or there is no certificate to encrypt for",
        "See what openssl says. Clear media is never uploaded in its place.",
        _SET_ASIDE,
    ),
    Code.BAD_CERTIFICATE: ErrorHelp(
        "An encryption certificate of RWS cannot be used",
        "It is damaged, or holds no RSA key",
        "Replace the certificate that the message names, in the encryption settings of RWS, then `retry`.",
        _SET_ASIDE,
    ),
    Code.UNKNOWN_ORDER: ErrorHelp(
        "A worker of the fleet could not read the order to make a muxed file",
        "It runs another version of the muxer than the poller",
        "Bring all to the same version (`status` names that of each worker), then `retry`.",
        _RETRY,
    ),
    Code.NEVER_FINISHED: ErrorHelp(
        "The order to make a muxed file was handed to workers of the fleet again and again, and none finished it",
        "A recording that kills its worker, such as one for which memory does not suffice; workers that are restarted all the time",
        "See the end of the workers' logs, and the system's log for processes that were killed. Mend that, then `retry`.",
        _RETRY,
    ),
    Code.SYSTEM: ErrorHelp(
        "The operating system refused something",
        "Rights on `temp_dir`, a failing disk, want of memory",
        "See what it says. `check` looks at the folders.",
        _BACKS_OFF,
    ),
    Code.UNEXPECTED: ErrorHelp(
        "An error that nobody expected",
        "A fault of this program",
        "Report it, with the lines of the log and their traceback.",
        _SET_ASIDE,
    ),
}


def help_for(code: str) -> str:
    """Given a code, return what to do; that of an unexpected error when there is no such code."""
    return HELP_BY_CODE[Code(code) if code in set(Code) else Code.UNEXPECTED].remedy


def render_page() -> str:
    """Return docs/errors.md."""
    head = (
        "# Errors\n\n"
        "For whoever has met a code `MUX-…`: in the log (field `code`), in `recording-muxer failed`, or on the status page. "
        "The codes are for good; a new version gives\nnone another meaning. What sets a recording aside and what pauses a whole "
        "service: [reliability](reliability.md#what-is-tried-again).\n"
    )
    return head + "".join(_render_section(code, HELP_BY_CODE[code]) for code in Code)


def _render_section(code: Code, one: ErrorHelp) -> str:
    return (
        f"\n## {code}\n\n{one.meaning}.\n\n"
        f"- **Usual cause**: {one.cause}.\n- **What to do**: {one.remedy}\n- **Tried again**: {one.again}.\n"
    )


if __name__ == "__main__":
    sys.stdout.write(render_page())
