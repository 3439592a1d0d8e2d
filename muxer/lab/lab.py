"""The lab as a context manager: servers, storage, keys, cases."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from muxer.lab.bucket import Bucket, ExternalS3
from muxer.lab.build import AddedCall, build
from muxer.lab.cases import EVERY_CASE, PLANS, Case
from muxer.lab.configuration import config_text
from muxer.lab.dav import DavServer, ExternalDav
from muxer.lab.keys import Recipient, recipients
from muxer.lab.rcs import Rcs
from muxer.lab.rws import Rws
from muxer.lab.service import Account, Server
from muxer.lab.site import CALLS, SCREENS, MediaRoot, Site
from muxer.lab.store import Store
from muxer.lab.switches import DEFAULTS, Switches
from muxer.lab.tools import run

AGE = timedelta(minutes=10)


@dataclass(frozen=True)
class Ports:
    """The TCP ports of the lab on 127.0.0.1; 0 takes any free one."""

    rws: int = 0
    rcs: int = 0
    dav: int = 0


ANY_PORTS = Ports()


class Lab:
    """A GIR installation below one folder: ``with Lab(folder) as lab`` starts its servers and stops them at the end.

    The media lie in folder/dav (calls/, screens/), or in the root of the external server ``dav``; those of the collections
    that ``s3`` names lie in its bucket. Keys lie in folder/keys.
    Without the ``with``, the lab has keys and accounts but no addresses. Raise LabError if a package of the lab is
    missing, OSError if a port is taken.
    """

    def __init__(
        self,
        folder: Path,
        switches: Switches = DEFAULTS,
        *,
        dav: ExternalDav | None = None,
        s3: ExternalS3 | None = None,
        ports: Ports = ANY_PORTS,
    ) -> None:
        self.folder = Path(folder)
        self._external, self._ports = dav, ports
        root = MediaRoot(dav.url, Path(dav.root)) if dav else MediaRoot("", self.folder / "dav")
        root = replace(root, bucket=Bucket(s3, self.folder / "fetched") if s3 else None)
        self.site = Site(root, recipients(self.folder / "keys"), switches)
        if dav:
            self.site.dav_account = Account(dav.username, dav.password)
        self._servers: list[Server | DavServer] = []
        self._late: list[tuple[str, dict[str, Any]]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "Lab":
        for collection in (CALLS, SCREENS):
            (self.site.media.folder / collection).mkdir(parents=True, exist_ok=True)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        site = self.site
        if self._external is None:
            server = DavServer(site.media.folder, site.dav_account, site.store, self._ports.dav)
            site.media = replace(site.media, url=server.url)
            self._run(server)
        rcs = Server(Rcs(site), site.store, self._ports.rcs)
        site.rcs_url = rcs.url
        self._run(rcs)
        rws = Server(Rws(site), site.store, self._ports.rws)
        site.rws_url = rws.url
        self._run(rws)

    def _run(self, server: Server | DavServer) -> None:
        server.start()
        self._servers.append(server)

    def _stop(self) -> None:
        while self._servers:
            self._servers.pop().stop()

    @property
    def store(self) -> Store:
        """The recordings, and the memory of what clients did."""
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
        """Scheme, host and port of RCS; its paths begin with /rcs."""
        return self.site.rcs_url

    @property
    def dav_url(self) -> str:
        """The URL of the storage, without a slash at the end; below it are calls/ and screens/."""
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
    def certificates(self) -> list[Recipient]:
        """Those for whom the settings of RWS ask to encrypt, with their keys."""
        return list(self.site.recipients)

    def config_text(self, **overrides: str) -> str:
        """Return a complete muxer.cfg for this lab; overrides are named ``section.option``."""
        return config_text(self.site, self.folder, overrides)

    def decrypt(self, pkcs7_pem: str, ciphertext: Path, out: Path, recipient: int = 0) -> None:
        """Given an envelope and the bare ciphertext, write the clear media with the openssl executable.

        ``recipient`` counts from 0. Raise LabError if openssl cannot decrypt it with that key.
        """
        reader = self.site.recipients[recipient]
        with TemporaryDirectory() as folder:
            envelope = Path(folder) / "envelope.pem"
            envelope.write_text(pkcs7_pem)
            source = ["-inform", "PEM", "-in", str(envelope), "-content", str(ciphertext)]
            key = ["-recip", str(reader.certificate_file), "-inkey", str(reader.key_file)]
            run(["openssl", "cms", "-decrypt", "-binary", *source, *key, "-out", str(out)])

    def add_case(self, case: Case, start: datetime | None = None, serial: int = 0) -> tuple[AddedCall, ...]:
        """Add the calls of one case; see add_cases. Another ``serial`` gives the same calls under other ids."""
        return self._add([case], start, serial)

    def add_cases(self, cases: Sequence[Case] = EVERY_CASE, start: datetime | None = None) -> tuple[AddedCall, ...]:
        """Add cases, their media made in parallel. The first call begins at ``start``, each next one a minute later.

        Without a start (cut to the whole second) the last one began ten minutes ago. Raise LabError if ffmpeg fails.
        """
        return self._add(cases, start, 0)

    def deliver_late(self) -> int:
        """Let the late screen media of all cases appear in RWS; return how many there were."""
        with self._lock:
            late, self._late = self._late, []
        for recording_id, media in late:
            self.store.add_screen_media(recording_id, self.region, media)
        return len(late)

    def _add(self, cases: Sequence[Case], start: datetime | None, serial: int) -> tuple[AddedCall, ...]:
        plans = [(case, plan) for case in cases for plan in PLANS[case]]
        first = (start or datetime.now(UTC) - AGE - timedelta(minutes=len(plans) - 1)).replace(microsecond=0)
        wanted = [(case, plan, first + timedelta(minutes=i), serial) for i, (case, plan) in enumerate(plans)]
        added, late = build(self.site, wanted)
        with self._lock:
            self._late += late
        return tuple(added)
