"""What ``[fleet]`` says of the broker: the addresses of its nodes, and what contradicts in the section."""

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
# Short enough for the names that begin with it: AMQP allows 255 bytes, the longest adds 120.
_QUEUE_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True)
class BrokerNode:
    """A node of the broker: where it is, whether it speaks TLS, and the login for a virtual host."""

    host: str
    port: int
    tls: bool
    username: str
    password: str
    virtual_host: str


def parse_nodes(value: str) -> tuple[BrokerNode, ...]:
    """Given addresses such as ``amqps://user:password@host:5671/vhost`` with commas between, return the nodes. Raise
    ``ValueError`` with a sentence that holds no part of an address, which may be the password."""
    return tuple(_parse_node(one.strip()) for one in value.split(",") if one.strip())


def parse_broker_url(value: str) -> str:
    """Given addresses of nodes, or nothing, return them as they are. Raise ``ValueError`` as :func:`nodes` does."""
    parse_nodes(value)
    return value


def parse_queue_name(value: str) -> str:
    """Given the name of a queue, return it. Raise ``ValueError`` when it is none that can be used everywhere."""
    if not _QUEUE_NAME.fullmatch(value) or value.startswith("amq."):
        raise ValueError("must be 1 to 100 letters, digits, dots, dashes and underscores, and not begin with amq.")
    return value


def passwords_of(value: str) -> tuple[str, ...]:
    """Given addresses that were checked, return the passwords in them, as they are and as they are written there."""
    written = tuple(urlsplit(one.strip()).password or "" for one in value.split(",") if one.strip())
    return tuple(dict.fromkeys(filter(None, (*(unquote(one) for one in written), *written))))


def find_problems(fleet: Mapping[str, Any]) -> list[Problem]:
    """Given the options of ``[fleet]``, without those that failed on their own, return what is missing."""
    if fleet.get("mode") != BROKER:
        return []
    found = []
    if fleet.get("broker_url") == "":
        found.append(Problem("[fleet] broker_url", "is required with mode = broker"))
    if missing := [name for name in REQUIRED_PACKAGES if find_spec(name) is None]:
        what = (
            f"the packages of a fleet are not installed ({', '.join(missing)} missing): "
            "pip install 'recording-muxer[fleet]', or ./install.sh --prefix DIR --fleet"
        )
        found.append(Problem("[fleet] mode = 'broker'", what))
    return found


def find_warnings(value: str, trusted_ca: object) -> list[str]:
    """Given the addresses and ``trusted_ca`` of a fleet that is used, return what is odd about them."""
    found = parse_nodes(value)
    odd = []
    if any(node.tls for node in found) and trusted_ca is False:
        odd.append("[fleet] trusted_ca = false: TLS certificates are not checked")
    if any(not node.tls and node.host not in ("localhost", "127.0.0.1", "::1") for node in found):
        odd.append("[fleet] broker_url: login and orders go over the network in clear; use amqps://")
    return odd


def _parse_node(address: str) -> BrokerNode:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise ValueError("has an address that cannot be read; in a password, write / # ? @ : % in the form %2F") from error
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError("must be an address such as amqps://user:password@host:5671/vhost, or several with commas between")
    if parts.query or parts.fragment:
        raise ValueError("must not hold a query or a fragment; in a password, write ? and # as %3F and %23")
    if parts.path.count("/") > 1:
        raise ValueError("has more than one / after the host; in a virtual host's name, or in a password, write it as %2F")
    login = (unquote(parts.username or "guest"), unquote(parts.password or "guest"))
    virtual_host = unquote(parts.path[1:]) or "/"
    return BrokerNode(parts.hostname, port or DEFAULT_PORTS[parts.scheme], parts.scheme == TLS, *login, virtual_host)
