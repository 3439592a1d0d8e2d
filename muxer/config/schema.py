"""Every option of muxer.cfg: its name, type, default, meaning and origin, in one place.

Each section is a frozen dataclass whose fields carry their own description. The loader uses it; ``muxer.cfg.sample`` and the
option reference are generated from it.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from muxer.config import fleet_options, types
from muxer.config.option import Option, guide_option, own_option
from muxer.config.programs import ProgramPath
from muxer.system.allowed_hours import AllowedHours

# Values of [logfile] output.
FILE_OUTPUT, STDERR_OUTPUT, JOURNALD_OUTPUT, SYSLOG_OUTPUT, EVENTLOG_OUTPUT = LOG_OUTPUTS = (
    "file",
    "stderr",
    "journald",
    "syslog",
    "eventlog",
)

_CA_DOC = "TLS: true = CAs of the system, false = no checks, or the path of a PEM bundle"
_PROGRAM_DOC = "full path of the {0} executable; {0} alone = the one in thirdparty/{1}/, or on the PATH"


@dataclass(frozen=True)
class HtccOptions:
    """The connection to Interaction Recording Web Services (RWS)."""

    base_uri: str = guide_option(types.parse_uri, "", "address of RWS, for example https://rws:8081", required=True)
    contact_center_id: str = guide_option(types.parse_text, "", "unique identifier of the contact center", required=True)
    username: str = guide_option(types.parse_text, "ops", "the ops account of RWS")
    password: str = guide_option(types.parse_text, "ops", "its password", env="HTCC_PASSWORD", secret=True)
    trusted_ca: bool | Path = guide_option(types.parse_trusted_ca, "false", _CA_DOC)
    rws_timeout: int = guide_option(
        types.IntegerType(30, 86_400, unit="seconds"), "30", "read timeout of RWS in seconds, >= 30"
    )


@dataclass(frozen=True)
class RcsOptions:
    """The connection to the Recording Crypto Server (RCS), needed only for encrypted recordings."""

    base_uri: str | None = guide_option(
        types.optional_type(types.parse_uri), "", "address of RCS; empty = no encrypted recordings"
    )
    username: str = guide_option(types.parse_text, "", "contact center user with the media decrypt permission")
    password: str = guide_option(types.parse_text, "", "its password", env="RCS_PASSWORD", secret=True)
    trusted_ca: bool | Path = guide_option(types.parse_trusted_ca, "false", _CA_DOC)


@dataclass(frozen=True)
class WebdavOptions:
    """The account for all WebDAV servers of the contact center's region."""

    username: str = guide_option(types.parse_text, "", "account with read and write access; empty = none")
    password: str = guide_option(types.parse_text, "", "its password", env="WEBDAV_PASSWORD", secret=True)
    trusted_ca: bool | Path = guide_option(types.parse_trusted_ca, "false", _CA_DOC)
    hosts: tuple[str, ...] = own_option(
        types.parse_hosts,
        "",
        "comma-separated list of the only WebDAV servers to connect to: host, host:port, *.domain, or * for any; "
        "empty = those of the site, see SECURITY.md",
        value=(),
    )


@dataclass(frozen=True)
class S3Options:
    """S3 Premise: any S3-compatible store. For an empty value, boto3 uses its own configuration chain."""

    endpoint_url: str | None = own_option(types.optional_type(types.parse_uri), "", "address of the store; empty = AWS")
    access_key_id: str = own_option(types.parse_text, "", "access key")
    secret_access_key: str = own_option(types.parse_text, "", "secret key", env="S3_SECRET_ACCESS_KEY", secret=True)
    region: str = own_option(types.parse_text, "", "signature region of the requests, see docs/s3.md")
    addressing_style: str | None = own_option(
        types.optional_type(types.ChoiceType(("path", "virtual", "auto"))), "", "path, virtual or auto"
    )
    trusted_ca: bool | Path | None = own_option(types.optional_type(types.parse_trusted_ca), "", _CA_DOC)


@dataclass(frozen=True)
class ProcessingOptions:
    """The polled time window, the instance and its programs."""

    ffmpeg: str = guide_option(ProgramPath("ffmpeg", "ffmpeg"), "ffmpeg", _PROGRAM_DOC.format("ffmpeg", "ffmpeg"))
    ffprobe: str = guide_option(ProgramPath("ffprobe", "ffmpeg"), "ffprobe", _PROGRAM_DOC.format("ffprobe", "ffmpeg"))
    openssl: str = guide_option(ProgramPath("openssl", "openssl"), "openssl", _PROGRAM_DOC.format("openssl", "openssl"))
    window_past: float = guide_option(
        types.NumberType(above=0, maximum=5_256_000, unit="minutes"),
        "720",
        "start of the polled window, in minutes before now",
    )
    window_past_older_than: float = guide_option(
        types.NumberType(0, maximum=5_256_000, unit="minutes"), "0", "end of the polled window, in minutes before now"
    )
    min_poll_interval: float = guide_option(
        types.NumberType(0, maximum=10_080, unit="minutes"), "5", "minutes from the start of one poll to the next"
    )
    poll_whole_window: bool = own_option(
        types.parse_switch,
        "0",
        "1 = every poll reads the whole window; 0 = older calls are read less often, see docs/running.md",
    )
    temp_dir: Path | None = guide_option(
        types.optional_type(types.parse_temp_folder),
        "",
        "existing folder for temporary files; empty = one below the system's",
    )
    auto_clean_temp_folder: bool = guide_option(types.parse_switch, "1", "1 = remove leftover files from temp_dir")
    clean_temp_folder_timeout: int = guide_option(
        types.IntegerType(-1, unit="seconds"),
        "43200",
        "seconds between two cleanups; -1 = when idle",
        aliases=("clean_temp_folder",),
    )
    min_free_megabytes: int | None = own_option(
        types.optional_type(types.IntegerType(0, unit="megabytes")),
        "",
        "no new recording is started while less is free on the disk of temp_dir; empty = 1024, or 5 % of a smaller disk",
    )
    batch_read_screen_recording_metadata: bool = guide_option(
        types.parse_switch, "1", "1 = read screen recordings in bulk, any other integer = one by one"
    )
    query_slice_size: int = guide_option(types.IntegerType(1, 100_000), "100", "call recordings per bulk query, > 0")
    muxer_id: int = guide_option(
        types.IntegerType(), "-1", "sharding: number of this instance from 0; -1 = off", command_line=True
    )
    total_muxers: int = guide_option(
        types.IntegerType(1), "1", "sharding: number of primary instances, backups not counted", command_line=True
    )
    muxer_type: str = guide_option(
        types.ChoiceType(("primary", "backup")), "primary", "sharding: primary or backup", command_line=True
    )


@dataclass(frozen=True)
class AdvancedOptions:
    """How recordings are queried, muxed and labeled."""

    worker_threads: int = guide_option(
        types.IntegerType(1, 1000), "5", "number of recordings to process at the same time, > 0"
    )
    pagination: int = guide_option(types.IntegerType(1, 100_000), "100", "recordings per page of an RWS query, > 0")
    concurrent_queries: int = own_option(
        types.IntegerType(1, 32), "4", "maximum number of queries that a poll sends to RWS at a time"
    )
    max_overlap_allowed: float = guide_option(
        types.NumberType(0, maximum=86_400, unit="seconds"),
        "2",
        "seconds that two screen files of an agent may overlap before the earlier is truncated",
    )
    video_padding_slice_length_ms: int = guide_option(
        types.IntegerType(1, 3_600_000, unit="milliseconds"), "5000", "length of one slice of padded video, milliseconds"
    )
    mark_screen_recording_label: bool = guide_option(types.parse_switch, "1", "1 = label the call recording screenRecording")
    call_recording_extra_query_string: str = guide_option(
        types.parse_extra_query,
        "",
        "additional query parameters, but not startTime, endTime, limit; empty = the built-in ones, disable = none",
    )
    call_recording_query_string: str = guide_option(
        types.parse_query, "", "migration: process what this query finds, then exit"
    )
    delete_superseded: bool = own_option(
        types.parse_switch,
        "1",
        "1 = delete a muxed file when one with more screen files, or with other paused spans, replaces it",
    )
    blank_paused: bool = own_option(
        types.parse_switch,
        "0",
        "1 = black video while the recording of the call was paused; use the same value on all muxers of a site",
    )
    audio_codec: str = own_option(
        types.ChoiceType(("copy", "aac")), "copy", "copy = keep the call's audio stream, aac = re-encode it"
    )
    incomplete_after: float = own_option(
        types.NumberType(0, maximum=525_600, unit="minutes"),
        "360",
        "minutes without growth after which an incomplete media file is muxed as it is; 0 = at once",
        value=360.0,
    )


@dataclass(frozen=True)
class LogfileOptions:
    """The log of this instance."""

    logfile_path: Path | None = guide_option(
        types.optional_type(types.parse_folder), "", "existing folder for the log file; empty = the working directory"
    )
    level: str = own_option(types.ChoiceType(("debug", "info", "warning", "error")), "info", "debug, info, warning or error")
    format: str = own_option(types.ChoiceType(("text", "json")), "text", "text or json")
    max_bytes: int = own_option(
        types.IntegerType(0, unit="bytes"),
        "10485760",
        "size in bytes at which the log file is rotated; 0 = another program rotates it",
    )
    backup_count: int = own_option(types.IntegerType(1), "10", "number of rotated log files to keep")
    output: str = own_option(
        types.ChoiceType(LOG_OUTPUTS),
        FILE_OUTPUT,
        "file, stderr, journald (systemd), syslog or eventlog (Windows); the three options of files are for file only",
        value=FILE_OUTPUT,
    )
    syslog_address: str = own_option(
        types.parse_syslog_address,
        "/dev/log",
        "for output = syslog: path of the socket of the syslog service, or host:port for UDP",
        value="/dev/log",
    )


@dataclass(frozen=True)
class MonitoringOptions:
    """Metrics, health and the status page over HTTP, see [monitoring.md](monitoring.md)."""

    http_address: str = own_option(
        types.parse_text,
        "127.0.0.1",
        "address to listen on; one that other machines can reach (0.0.0.0 = all) requires all options below",
    )
    http_port: int = own_option(types.IntegerType(0, 65_535), "0", "port to listen on, for example 9477; 0 = off")
    username: str = own_option(
        types.parse_text, "", "user name for HTTP Basic; empty = all users of this machine have access"
    )
    password: str = own_option(types.parse_text, "", "its password", env="MONITORING_PASSWORD", secret=True)
    certificate: Path | None = own_option(
        types.optional_type(types.parse_certificate),
        "",
        "for https: path of a PEM file with the certificate of the server, then those of its authorities; empty = http",
        value=None,
    )
    key: Path | None = own_option(
        types.optional_type(types.parse_file),
        "",
        "path of the private key of the certificate, PEM without a password",
        value=None,
    )


@dataclass(frozen=True)
class AlertOptions:
    """A program that is called when something needs an administrator, see [alerts.md](alerts.md)."""

    command: Path | None = own_option(
        types.optional_type(types.parse_program),
        "",
        "path of a program to call, without arguments: it gets each event as JSON on stdin; empty = none",
        value=None,
    )
    service_minutes: float = own_option(
        types.NumberType(0, maximum=10_080),
        "10",
        "call it when a service has been unavailable, or recordings have needed a correction, for this many minutes",
        value=10.0,
    )


@dataclass(frozen=True)
class AuditOptions:
    """Regular audits, see [audit.md](audit.md#regularly). The command `audit` uses the last two options, too."""

    every: float = own_option(
        types.parse_days,
        "0",
        "days from one audit to the next, which covers the calls since then, such as 7 or 7 days; 0 = never",
        value=0.0,
    )
    hours: AllowedHours | None = own_option(types.parse_hours, "", "only in these hours, such as 20-6", value=None)
    rate: float = own_option(types.NumberType(0.1, maximum=10_000), "10", "requests a second, at most", value=10.0)
    encrypted_since: datetime | None = own_option(
        types.optional_type(types.parse_time),
        "",
        "when the site began to encrypt, such as 2025-06-01; empty = when its certificates became valid",
        value=None,
    )
    former_certificates: Path | None = own_option(
        types.optional_type(types.parse_certificate),
        "",
        "PEM file of the site's encryption certificates of earlier times",
        value=None,
    )


@dataclass(frozen=True)
class FleetOptions:
    """Workers on any number of machines, which get their tasks from RabbitMQ, see [scaling.md](scaling.md)."""

    mode: str = own_option(
        types.ChoiceType((fleet_options.LOCAL, fleet_options.BROKER)),
        fleet_options.LOCAL,
        "local = this process does the work, broker = it sends the work to workers through RabbitMQ",
    )
    broker_url: str = own_option(
        fleet_options.parse_broker_url,
        "",
        "amqps://user:password@host:5671/vhost; comma-separated for several nodes of a cluster",
        env="FLEET_BROKER_URL",
        secret=True,
    )
    queue: str = own_option(fleet_options.parse_queue_name, "recording-muxer", "prefix of the names of all queues")
    trusted_ca: bool | Path = own_option(types.parse_trusted_ca, "true", _CA_DOC)
    prefetch: int = own_option(
        types.IntegerType(1, 100),
        "1",
        "tasks that a worker holds for each thread, including the one in progress",
    )
    max_queue: int = own_option(types.IntegerType(1, 1_000_000), "5000", "maximum number of tasks in the queues")


@dataclass(frozen=True)
class Config:
    """The whole configuration, one attribute for each section of muxer.cfg."""

    htcc: HtccOptions
    rcs: RcsOptions
    webdav: WebdavOptions
    s3: S3Options
    processing: ProcessingOptions
    advanced: AdvancedOptions
    logfile: LogfileOptions
    monitoring: MonitoringOptions
    alerts: AlertOptions
    audit: AuditOptions
    fleet: FleetOptions
    # Where each value comes from, by section and option.
    origins: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def is_sharded(self) -> bool:
        """Whether this instance processes only its share of the recordings."""
        return self.processing.muxer_id >= 0

    @property
    def is_fleet(self) -> bool:
        """Whether the work is sent to workers through a broker."""
        return self.fleet.mode == fleet_options.BROKER

    @property
    def instance_name(self) -> str:
        """A short name for this instance, used for its log file and its default temporary folder."""
        processing = self.processing
        return f"{processing.muxer_type}-{processing.muxer_id}" if self.is_sharded else "single"

    @property
    def secret_values(self) -> tuple[str, ...]:
        """The secrets that must never be written, and the credentials as HTTP sends them, which a server may echo."""
        values = (getattr(getattr(self, section), name) for section, name, option in all_options() if option.secret)
        accounts = (self.htcc, self.rcs, self.webdav, self.monitoring)
        logins = (f"{account.username}:{account.password}" for account in accounts if account.password)
        encoded = (base64.b64encode(login.encode()).decode() for login in logins)
        return (*filter(None, values), *fleet_options.passwords_of(self.fleet.broker_url), *encoded)


SECTIONS: dict[str, type[Any]] = {
    "htcc": HtccOptions,
    "rcs": RcsOptions,
    "webdav": WebdavOptions,
    "s3": S3Options,
    "processing": ProcessingOptions,
    "advanced": AdvancedOptions,
    "logfile": LogfileOptions,
    "monitoring": MonitoringOptions,
    "alerts": AlertOptions,
    "audit": AuditOptions,
    "fleet": FleetOptions,
}


def all_options() -> Iterator[tuple[str, str, Option]]:
    """Yield (section, name, description) of every option, in the order of the sample file."""
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            yield section, field.name, field.metadata["option"]
