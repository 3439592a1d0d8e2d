"""All checks in their order: configuration, this machine, RWS, RCS, the storages, the broker, certificates."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from muxer.checks import certificates
from muxer.checks.broker import BrokerChecks
from muxer.checks.checklist import Check, Finding, failed_finding, passed_finding, warning_finding
from muxer.checks.connection import CheckedServer
from muxer.checks.machine import PACKAGES, MachineChecks
from muxer.checks.monitoring import MonitoringChecks
from muxer.checks.rcs import RcsChecks
from muxer.checks.rws import RwsChecks
from muxer.checks.storages import StorageChecks
from muxer.config import ConfigReading
from muxer.config.ca_bundle import read_certificates
from muxer.config.keystore import KEYSTORE_FILE
from muxer.config.load import FILE
from muxer.config.schema import SECTIONS, all_options
from muxer.errors import EncryptionMissing, Problem
from muxer.status.advice import RWS_TIMEOUT_SECTIONS

CONFIGURATION = "configuration"
PASSWORDS = "passwords in the file"
_BESIDE_VALID = "remove it from the file, unless a server still needs it: then renew it"
ENCRYPTION = "encryption certificates"
# Requests in one check that may each take nearly all of rws_timeout.
MAX_SLOW_REQUESTS = 2


def unusable_options(reading: ConfigReading) -> list[str]:
    """Return the options without a valid value."""
    return [f"[{section}] {name}" for section, name, _ in all_options() if not reading.has_value(section, name)]


class CheckSuite:
    """The checks of a site."""

    def __init__(self, reading: ConfigReading, path: Path, write: bool, stop: threading.Event) -> None:
        """`path` is that of muxer.cfg; `write`: upload a file to each storage."""
        self._reading, self._path = reading, path
        self._config = reading.config
        self._rws = RwsChecks(self._config, stop)
        self._rcs = RcsChecks(self._config, self._rws, stop)
        self._storages = StorageChecks(self._config, self._rws, write, stop)
        self._broker = BrokerChecks(self._config)

    def remove_test_files(self) -> list[str]:
        """Delete the test files of checks that have not ended, once `stop` is set; return those that may be left."""
        return [f"{file.folder}{file.name}" for file in self._storages.remove_test_files()]

    def create_checks(self) -> Iterator[Check]:
        """Yield the checks; later ones depend on the findings of earlier ones."""
        yield Check(CONFIGURATION, self._check_configuration)
        yield Check(PASSWORDS, self._check_passwords)
        yield from MachineChecks(self._config).create_checks()
        for check in self._create_network_checks():
            slowness = MAX_SLOW_REQUESTS * self._config.htcc.rws_timeout if check.section in RWS_TIMEOUT_SECTIONS else 0.0
            yield replace(check, needs=(*check.needs, PACKAGES), seconds=check.seconds + slowness)

    def _create_network_checks(self) -> Iterator[Check]:
        """Yield the checks that use packages whose versions matter."""
        yield from MonitoringChecks(self._config).create_checks()
        yield from self._rws.create_checks()
        yield from self._rcs.create_checks()
        yield from self._storages.create_checks()
        yield from self._broker.create_checks()
        for server in (self._rws.server, self._rcs.server, *self._storages.servers, *self._broker.servers):
            if server.certificate is not None:
                yield Check(f"certificate of {server.name}", partial(_check_server_certificate, server))
        for section in SECTIONS:
            bundle = getattr(getattr(self._config, section), "trusted_ca", None)
            if isinstance(bundle, Path):
                yield Check(f"[{section}] trusted_ca", partial(_check_bundle, section, bundle))
        yield Check(ENCRYPTION, self._check_recipients, ("RWS contact center", "RWS login"), "htcc")

    def _check_configuration(self) -> Iterator[Finding]:
        for problem in self._reading.problems:
            yield failed_finding(CONFIGURATION, str(problem), self._correction_advice(problem))
        for text in self._reading.warnings:
            yield warning_finding(
                CONFIGURATION, text, f"see docs/options.md, and change it in {self._path} if it is not intended"
            )
        if not self._reading.problems and not self._reading.warnings:
            yield passed_finding(CONFIGURATION, f"{self._path}, as {self._config.instance_name}")

    def _check_passwords(self) -> Iterator[Finding]:
        written = [
            f"[{section}] {name}"
            for section, name, option in all_options()
            if option.secret and self._reading.origins.get((section, name), "").startswith(FILE)
        ]
        if sys.platform == "win32" or not written:
            return
        status = self._path.stat()
        others = foreign_read_rights(status.st_uid, os.getuid())
        mode = stat.S_IMODE(status.st_mode)
        if mode & others:
            command = f"chmod {mode & ~(others | stat.S_IRWXO):o} {self._path}"
            advice = f"{command}, or move them to the keystore (docs/passwords.md)"
            yield warning_finding(
                PASSWORDS, f"{', '.join(written)}; other accounts can read the file (mode {mode:04o})", advice
            )
        else:
            yield passed_finding(PASSWORDS, f"{', '.join(written)}; other accounts cannot read the file (mode {mode:04o})")

    def _correction_advice(self, problem: Problem) -> str:
        if problem.where.startswith(str(self._path.parent / KEYSTORE_FILE)):  # or its key
            return "follow the text, then run check again"
        origin = problem.origin
        place = origin if origin and not origin.startswith(FILE) else str(self._path)
        line = origin.removeprefix(FILE) if origin.startswith(FILE) else ""
        return f"correct it: {place}{line}"

    def _check_recipients(self) -> Iterator[Finding]:
        try:
            recipients = self._rws.rws_client.fetch_certificates()
        except EncryptionMissing as error:
            advice = "correct the settings screen-recording-encryption in RWS: until then the muxer stores nothing"
            yield failed_finding(ENCRYPTION, str(error), advice)
            return
        if not recipients:
            yield passed_finding(ENCRYPTION, "RWS has none: muxed files are stored unencrypted")
        for number, recipient in enumerate(recipients, start=1):
            check = f"encryption certificate {recipient.alias or number}"
            try:
                certificate = certificates.parse_pem(recipient.pem)
            except ValueError:
                yield failed_finding(
                    check, "it cannot be read", "put the certificate into the settings of RWS again, as PEM"
                )
                continue
            yield certificates.check_expiry(check, certificate, certificates.utc_now())


def foreign_read_rights(owner: int, account: int) -> int:
    """Return the read permissions that serve only other accounts; the group may serve us to read a file of root."""
    return stat.S_IROTH | (stat.S_IRGRP if owner == account != 0 else 0)


def _check_server_certificate(server: CheckedServer) -> Iterator[Finding]:
    assert server.certificate is not None
    matters = server.trusted_ca is not False
    yield certificates.check_expiry(
        f"certificate of {server.name}", server.certificate, certificates.utc_now(), matters=matters
    )


def _check_bundle(section: str, bundle: Path) -> Iterator[Finding]:
    """Check the authorities of a bundle: an expired one, such as that before a change, only matters without a valid one."""
    found, now = read_certificates(bundle), certificates.utc_now()
    matters = not any(one.not_valid_before_utc <= now < one.not_valid_after_utc for one in found)
    for certificate in found:
        yield certificates.check_expiry(f"[{section}] trusted_ca", certificate, now, matters=matters, unused=_BESIDE_VALID)
