"""The lab as a context manager: servers, storage, keys, cases."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from lab.bucket import ExternalBucket, ExternalS3
from lab.build import AddedCall, build_calls
from lab.cases import ALL_CASES, CASE_PLANS, Case
from lab.configuration import config_text
from lab.dav import DavServer, ExternalDav
from lab.keys import Recipient, load_recipients
from lab.rcs import RcsApplication
from lab.rws import RwsApplication
from lab.service import LabServer, ServiceAccount
from lab.site import CALLS, SCREENS, LabSite, MediaRoot
from lab.store import RecordingStore
from lab.switches import DEFAULT_SWITCHES, Switches
from lab.tools import run_program

DEFAULT_CALL_AGE = timedelta(minutes=10)


@dataclass(frozen=True)
class LabPorts:
    """The TCP ports of the lab on 127.0.0.1; 0 takes any free one."""

    rws: int = 0
    rcs: int = 0
    dav: int = 0


ANY_PORTS = LabPorts()


class Lab:
    """A GIR installation in one folder: `with Lab(folder) as lab` starts its servers and stops them at the end.

    The media are in folder/dav (calls/, screens/), or in the root of the external server `dav`; those of the collections
    that `s3` names are in its bucket. Keys are in folder/keys. Without `with`, the lab has keys and accounts but no
    addresses. Raises LabError if a package of the lab is missing, OSError if a port is in use.
    """

    def __init__(
        self,
        folder: Path,
        switches: Switches = DEFAULT_SWITCHES,
        *,
        dav: ExternalDav | None = None,
        s3: ExternalS3 | None = None,
        ports: LabPorts = ANY_PORTS,
    ) -> None:
        self.folder = Path(folder)
        self._external, self._ports = dav, ports
        root = MediaRoot(dav.url, Path(dav.root)) if dav else MediaRoot("", self.folder / "dav")
        root = replace(root, bucket=ExternalBucket(s3, self.folder / "fetched") if s3 else None)
        self.site = LabSite(root, load_recipients(self.folder / "keys"), switches)
        if dav:
            self.site.dav_account = ServiceAccount(dav.username, dav.password)
        self._servers: list[LabServer | DavServer] = []
        self._late: list[tuple[str, dict[str, Any]]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "Lab":
        for collection in (CALLS, SCREENS):
            (self.site.media.folder / collection).mkdir(parents=True, exist_ok=True)
        try:
            self._start_servers()
        except BaseException:
            self._stop_servers()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop_servers()

    def _start_servers(self) -> None:
        site = self.site
        if self._external is None:
            server = DavServer(site.media.folder, site.dav_account, site.store, self._ports.dav)
            site.media = replace(site.media, url=server.url)
            self._run_server(server)
        rcs = LabServer(RcsApplication(site), site.store, self._ports.rcs)
        site.rcs_url = rcs.url
        self._run_server(rcs)
        rws = LabServer(RwsApplication(site), site.store, self._ports.rws)
        site.rws_url = rws.url
        self._run_server(rws)

    def _run_server(self, server: LabServer | DavServer) -> None:
        server.start()
        self._servers.append(server)

    def _stop_servers(self) -> None:
        while self._servers:
            self._servers.pop().stop()

    @property
    def store(self) -> RecordingStore:
        """The recordings, and what clients did."""
        return self.site.store

    @property
    def switches(self) -> Switches:
        """How the servers behave; may be set at any time."""
        return self.site.switches

    @switches.setter
    def switches(self, value: Switches) -> None:
        self.site.switches = value

    @property
    def rcs_permission(self) -> bool:
        """Whether the account of RCS may decrypt media; may be set at any time."""
        return self.site.rcs_permission

    @rcs_permission.setter
    def rcs_permission(self, value: bool) -> None:
        self.site.rcs_permission = value

    @property
    def rws_url(self) -> str:
        """Scheme, host and port of RWS."""
        return self.site.rws_url

    @property
    def rcs_url(self) -> str:
        """Scheme, host and port of RCS; its paths start with /rcs."""
        return self.site.rcs_url

    @property
    def dav_url(self) -> str:
        """The URL of the storage, without a slash at the end; it contains calls/ and screens/."""
        return self.site.media.url.rstrip("/")

    @property
    def ccid(self) -> str:
        """The id of the contact center."""
        return self.site.ccid

    @property
    def region(self) -> str:
        """The region that RWS serves."""
        return self.site.region

    @property
    def encryption_recipients(self) -> list[Recipient]:
        """The recipients in the encryption settings of RWS, with their keys."""
        return list(self.site.recipients)

    def config_text(self, **overrides: str) -> str:
        """Return a complete muxer.cfg for this lab; overrides are named `section.option`."""
        return config_text(self.site, self.folder, overrides)

    def decrypt_file(self, pkcs7_pem: str, ciphertext: Path, out: Path, recipient: int = 0) -> None:
        """Decrypt `ciphertext` to `out` with the openssl executable and the key of a recipient, counted from 0.

        Raises LabError if openssl cannot decrypt it with that key.
        """
        owner = self.site.recipients[recipient]
        with TemporaryDirectory() as folder:
            envelope = Path(folder) / "envelope.pem"
            envelope.write_bytes(pkcs7_pem.encode())  # its line ends as they are
            source = ["-inform", "PEM", "-in", str(envelope), "-content", str(ciphertext)]
            key = ["-recip", str(owner.certificate_file), "-inkey", str(owner.key_file)]
            run_program(["openssl", "cms", "-decrypt", "-binary", *source, *key, "-out", str(out)])

    def change_certificates(self) -> tuple[Recipient, ...]:
        """Replace the certificates in the settings of RWS by new ones, as a site does. Returns the earlier ones."""
        earlier = self.site.recipients
        self.site.former_recipients += earlier
        self.site.recipients = load_recipients(self.folder / f"keys-{len(self.site.former_recipients)}")
        return earlier

    def add_case(self, case: Case, start: datetime | None = None, serial: int = 0) -> tuple[AddedCall, ...]:
        """Add the calls of one case; see add_cases. Another `serial` gives the same calls other ids."""
        return self._add_calls([case], start, serial)

    def add_cases(self, cases: Sequence[Case] = ALL_CASES, start: datetime | None = None) -> tuple[AddedCall, ...]:
        """Add cases; their media are created in parallel. The first call starts at `start`, each next one a minute later.

        Without `start`, the last one started ten minutes ago. Raises LabError if ffmpeg fails.
        """
        return self._add_calls(cases, start, 0)

    def deliver_late(self) -> int:
        """Publish the late screen media of all cases in RWS. Returns their number."""
        with self._lock:
            late, self._late = self._late, []
        for recording_id, media in late:
            self.store.add_screen_media(recording_id, self.region, media)
        return len(late)

    def _add_calls(self, cases: Sequence[Case], start: datetime | None, serial: int) -> tuple[AddedCall, ...]:
        plans = [(case, plan) for case in cases for plan in CASE_PLANS[case]]
        first = (start or datetime.now(UTC) - DEFAULT_CALL_AGE - timedelta(minutes=len(plans) - 1)).replace(microsecond=0)
        wanted = [(case, plan, first + timedelta(minutes=i), serial) for i, (case, plan) in enumerate(plans)]
        added, late = build_calls(self.site, wanted)
        with self._lock:
            self._late += late
        return tuple(added)
