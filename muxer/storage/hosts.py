"""Which WebDAV servers are spoken to. Media descriptors name whole addresses, so whoever can write one could send our
account, or a muxed file, to a server of his own.

With the option ``[webdav] hosts``, only those servers are spoken to. Without it, only servers of the site (our decision):
those with addresses or names that are not of the internet, and those of the organisation of RWS and RCS. A name that
belongs to neither counts by the addresses to which it leads, and those alone are then connected to: a name that leads
elsewhere a moment later is of no use.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from muxer.errors import AccessDenied, Code

ANY = "*"
Address = IPv4Address | IPv6Address
Resolve = Callable[[str], Sequence[str]]

_PORTS = {"http": 80, "https": 443}
# Names that the internet's DNS does not have (RFC 2606, 6761, 6762, 8375 and what firms use besides).
_INNER = frozenset(("local", "localhost", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "test"))
# In these, everybody may have a name: they are no organisation. Second-level names of countries are known by their form.
_SHARED = frozenset(
    ("amazonaws.com", "azure.com", "azurewebsites.net", "cloudapp.net", "googleusercontent.com", "windows.net")
)
_SHORT = 3


class Hosts:
    """The servers that are spoken to. Safe to use from any thread."""

    def __init__(self, listed: Sequence[str], site: Iterable[str], resolve: Resolve | None = None) -> None:
        """Given the option ``[webdav] hosts`` and the addresses of RWS and RCS; ``resolve`` returns the network addresses of
        a name."""
        self._listed = listed
        self._site = frozenset(name.lower() for one in site if (name := urlsplit(one).hostname))
        self._organisations = {found for name in self._site if (found := _organisation(name))}
        self._resolve = resolve or _resolved
        self._lock = threading.Lock()
        self._safe: set[str] = set()

    def admit(self, scheme: str, host: str, port: int | None) -> Sequence[str]:
        """Given where something is about to be sent, return the network addresses to which it may go; none are those of the
        name. Raise :class:`AccessDenied` when it must not be sent."""
        name = host.lower().rstrip(".")
        if self._listed:
            if not any(_fits(one, name, port or _PORTS[scheme]) for one in self._listed):
                raise _denied(name, "is not in [webdav] hosts", "add it there")
            return ()
        literal = _literal(name)
        with self._lock:
            if scheme == "http" and name in self._safe and not _is_loopback(name, literal):
                raise _denied(name, "was spoken to over https before, now http is asked for", "name it in [webdav] hosts")
        if name in self._site or _is_inner(name, literal) or _organisation(name) in self._organisations:
            return ()
        found = [] if literal else self._resolve(name)
        if not found or not all(_is_inside(ip_address(one)) for one in found):
            raise _denied(name, "is no server of this site as far as can be told", "name it in [webdav] hosts")
        return found

    def spoke_safely(self, host: str) -> None:
        """Note that a server has answered over https: from now on http is too weak for it."""
        with self._lock:
            self._safe.add(host.lower().rstrip("."))


def _denied(name: str, why: str, what: str) -> AccessDenied:
    return AccessDenied(
        f"the WebDAV server {name[:200]} {why}, so nothing is sent to it; if it is one of yours, {what}",
        code=Code.FOREIGN_SERVER,
    )


def _fits(entry: str, name: str, port: int) -> bool:
    """Whether an entry of the option means a server: ``*``, ``*.domain``, or a host, with a port or without."""
    parts = urlsplit(f"//{entry}")
    wanted = parts.hostname or ""
    fits = wanted in (name, ANY) or (wanted.startswith("*.") and name.endswith(wanted[1:]))
    return fits and parts.port in (None, port)


def _literal(name: str) -> Address | None:
    """Return the network address that a host is written as, also in the odd forms that systems take (``0x7f.1``)."""
    try:
        return ip_address(name.partition("%")[0])
    except ValueError:
        pass
    try:
        return ip_address(socket.inet_aton(name))
    except (OSError, ValueError):
        return None


def _is_inner(name: str, literal: Address | None) -> bool:
    """Whether a host is, by its form alone, none of the internet."""
    if literal is not None:
        return _is_inside(literal)
    return name.rpartition(".")[2] in _INNER or "." not in name


def _is_inside(address: Address) -> bool:
    """Whether a network address is one of a firm's own, or of this machine."""
    inner = getattr(address, "ipv4_mapped", None) or address
    odd = inner.is_link_local or inner.is_multicast or inner.is_unspecified
    return not inner.is_global and not odd


def _is_loopback(name: str, literal: Address | None) -> bool:
    return literal.is_loopback if literal else name == "localhost"


def _organisation(name: str) -> str | None:
    """Return the domain of the organisation that a host belongs to, as far as its name tells (``bank.co.uk``)."""
    labels = name.split(".")
    if _literal(name) or len(labels) < 2 or not all(labels):
        return None
    of_country = len(labels[-1]) == 2 and len(labels[-2]) <= _SHORT
    count = 3 if of_country else 2
    domain = ".".join(labels[-count:])
    return domain if len(labels) >= count and domain not in _SHARED else None


def _resolved(name: str) -> Sequence[str]:
    return list(dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)))
