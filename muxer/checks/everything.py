"""All checks in their order: configuration, this machine, RWS, RCS, the storages, the broker, certificates."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from muxer.checks import certificates
from muxer.checks.broker import OfBroker
from muxer.checks.checklist import Check, Finding, failed, ok, warning
from muxer.checks.connection import Server
from muxer.checks.machine import Machine
from muxer.checks.monitoring import OfMonitoring
from muxer.checks.rcs import OfRcs
from muxer.checks.rws import OfRws
from muxer.checks.storages import OfStorages
from muxer.config import Reading
from muxer.config.load import DEFAULT, FILE
from muxer.config.pem import certificates_in
from muxer.config.schema import SECTIONS, options
from muxer.errors import EncryptionMissing, Problem

CONFIGURATION = "configuration"
PASSWORDS = "passwords in the file"
ENCRYPTION = "encryption certificates"


def unusable(reading: Reading) -> list[str]:
    """Given what was read of a configuration, return the options that have no usable value."""
    return [f"[{section}] {name}" for section, name, _ in options() if not reading.has(section, name)]


class Everything:
    """The checks of a site."""

    def __init__(self, reading: Reading, path: Path, scratch: Path, write: bool, stop: threading.Event) -> None:
        """Given what was read of the configuration and from where, a folder of our own, whether to upload a file to each
        storage, and what ends requests that wait."""
        self._reading, self._path = reading, path
        self._config = reading.config
        self._rws = OfRws(self._config, stop)
        self._rcs = OfRcs(self._config, self._rws, stop)
        self._storages = OfStorages(self._config, self._rws, scratch, write, stop)
        self._broker = OfBroker(self._config)

    def checks(self) -> Iterator[Check]:
        """Yield them; the later ones follow from what the earlier ones have seen."""
        yield Check(CONFIGURATION, self._configuration)
        yield Check(PASSWORDS, self._passwords)
        yield from Machine(self._config).checks()
        yield from OfMonitoring(self._config).checks()
        yield from self._rws.checks()
        yield from self._rcs.checks()
        yield from self._storages.checks()
        yield from self._broker.checks()
        for server in (self._rws.server, self._rcs.server, *self._storages.servers, *self._broker.servers):
            if server.certificate is not None:
                yield Check(f"certificate of {server.name}", partial(_of_server, server))
        for section in SECTIONS:
            bundle = getattr(getattr(self._config, section), "trusted_ca", None)
            if isinstance(bundle, Path):
                yield Check(f"[{section}] trusted_ca", partial(_of_bundle, section, bundle))
        yield Check(ENCRYPTION, self._recipients, ("RWS contact center", "RWS login"), "htcc")

    def _configuration(self) -> Iterator[Finding]:
        for problem in self._reading.problems:
            yield failed(CONFIGURATION, str(problem), self._correction(problem))
        for text in self._reading.warnings:
            yield warning(CONFIGURATION, text, f"see docs/options.md, and change it in {self._path} if it is not meant")
        if not self._reading.problems and not self._reading.warnings:
            yield ok(CONFIGURATION, f"{self._path}, as {self._config.instance}")

    def _passwords(self) -> Iterator[Finding]:
        """Look who can read the passwords that stand in the file."""
        written = [
            f"[{section}] {name}"
            for section, name, option in options()
            if option.secret and self._reading.origins.get((section, name), "").startswith(FILE)
        ]
        if os.name != "posix" or not written:
            return
        status = self._path.stat()
        others = readers(status.st_uid, os.getuid())
        mode = stat.S_IMODE(status.st_mode)
        if mode & others:
            closed = f"chmod {mode & ~(others | stat.S_IRWXO):o} {self._path}"
            advice = f"{closed}, or move them into the keystore (docs/passwords.md)"
            yield warning(PASSWORDS, f"{', '.join(written)}; other accounts can read the file (mode {mode:04o})", advice)
        else:
            yield ok(PASSWORDS, f"{', '.join(written)}; other accounts cannot read the file (mode {mode:04o})")

    def _correction(self, problem: Problem) -> str:
        """Return where a wrong value is to be corrected."""
        named = re.match(r"\[(\w+)\] (\w+)", problem.where)
        origin = self._reading.origins.get((named[1], named[2]), "") if named else ""
        place = origin if origin and not origin.startswith((FILE, DEFAULT)) else str(self._path)
        line = origin.removeprefix(FILE) if origin.startswith(FILE) else ""
        return f"correct it: {place}{line}"

    def _recipients(self) -> Iterator[Finding]:
        try:
            found = self._rws.rws.certificates()
        except EncryptionMissing as error:
            advice = "correct the settings screen-recording-encryption in RWS: nothing is stored in clear until then"
            yield failed(ENCRYPTION, str(error), advice)
            return
        if not found:
            yield ok(ENCRYPTION, "RWS has none: muxed files are stored in clear")
        for number, one in enumerate(found, start=1):
            check = f"encryption certificate {one.alias or number}"
            try:
                read = certificates.from_pem(one.pem)
            except ValueError:
                yield failed(check, "it cannot be read", "put the certificate into the settings of RWS again, as PEM")
                continue
            yield certificates.expiry(check, read, certificates.moment())


def readers(owner: int, account: int) -> int:
    """Given whose a file is and which account asks, return the rights to read it that only others can have use of. The group
    of a file of root is how the muxer's account reads it."""
    return stat.S_IROTH | (stat.S_IRGRP if owner == account != 0 else 0)


def _of_server(server: Server) -> Iterator[Finding]:
    assert server.certificate is not None
    matters = server.trusted_ca is not False
    yield certificates.expiry(f"certificate of {server.name}", server.certificate, certificates.moment(), matters=matters)


def _of_bundle(section: str, bundle: Path) -> Iterator[Finding]:
    for one in certificates_in(bundle):
        yield certificates.expiry(f"[{section}] trusted_ca", one, certificates.moment())
