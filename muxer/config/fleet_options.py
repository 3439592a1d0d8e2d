"""Parses and checks the options of ``[fleet]``: the addresses of the broker nodes and the required packages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import unquote, urlsplit

from muxer.errors import Problem

PLAIN, TLS = "amqp", "amqps"
DEFAULT_PORTS = {PLAIN: 5672, TLS: 5671}
LOCAL, BROKER = "local", "broker"
REQUIRED_PACKAGES = ("dramatiq", "pika")
# It is the prefix of longer names: AMQP allows 255 bytes, and the longest suffix has 120.
_QUEUE_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True)
class BrokerNode:
    """A node of the broker, with the credentials for a virtual host."""

    host: str
    port: int
    tls: bool
    username: str
    password: str
    virtual_host: str

    @property
    def address(self) -> str:
        """Host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_nodes(value: str) -> tuple[BrokerNode, ...]:
    """Parse comma-separated AMQP addresses. Raises ValueError without any part of one, which may be the password."""
    return tuple(_parse_node(one.strip()) for one in value.split(",") if one.strip())


def parse_broker_url(value: str) -> str:
    """Check the addresses of nodes as :func:`parse_nodes`, and return them unchanged."""
    parse_nodes(value)
    return value


def parse_queue_name(value: str) -> str:
    """Check the name of a queue, and return it unchanged."""
    if not _QUEUE_NAME.fullmatch(value) or value.startswith("amq."):
        raise ValueError("must be 1 to 100 letters, digits, dots, dashes and underscores, and must not start with amq.")
    return value


def passwords_of(value: str) -> tuple[str, ...]:
    """Return the passwords in valid addresses, decoded and as written."""
    written = tuple(urlsplit(one.strip()).password or "" for one in value.split(",") if one.strip())
    return tuple(dict.fromkeys(filter(None, (*(unquote(one) for one in written), *written))))


def find_problems(fleet: Mapping[str, Any]) -> list[Problem]:
    """Return what is missing for ``mode = broker``. `fleet` holds the valid options."""
    if fleet.get("mode") != BROKER:
        return []
    problems = []
    if "broker_url" in fleet and not parse_nodes(fleet["broker_url"]):
        problems.append(Problem("[fleet] broker_url", "is required with mode = broker"))
    if missing := [name for name in REQUIRED_PACKAGES if find_spec(name) is None]:
        what = (
            f"the packages of a fleet are not installed ({', '.join(missing)} missing): "
            "pip install 'recording-muxer[fleet]', or ./install.sh --prefix DIR --fleet"
        )
        problems.append(Problem("[fleet] mode = 'broker'", what))
    return problems


def find_warnings(value: str, trusted_ca: object) -> list[str]:
    """Return the security warnings for the addresses and ``trusted_ca`` of a fleet in use."""
    nodes = parse_nodes(value)
    warnings = []
    if any(node.tls for node in nodes) and trusted_ca is False:
        warnings.append("[fleet] trusted_ca = false: TLS certificates are not checked")
    if any(not node.tls and node.host not in ("localhost", "127.0.0.1", "::1") for node in nodes):
        warnings.append("[fleet] broker_url: credentials and tasks are sent unencrypted; use amqps://")
    return warnings


def _parse_node(address: str) -> BrokerNode:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise ValueError("has a malformed address; in a password, encode / # ? @ : % as in %2F") from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError(
            "must be an address such as amqps://user:password@host:5671/vhost, or a comma-separated list of them"
        )
    if parts.query or parts.fragment:
        raise ValueError("must not contain a query or a fragment; in a password, write ? and # as %3F and %23")
    if parts.path.count("/") > 1:
        raise ValueError("has more than one / after the host; in a virtual host's name, or in a password, write it as %2F")
    login = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
    virtual_host = unquote(parts.path[1:]) or "/"
    return BrokerNode(parts.hostname, port or DEFAULT_PORTS[parts.scheme], parts.scheme == TLS, *login, virtual_host)
