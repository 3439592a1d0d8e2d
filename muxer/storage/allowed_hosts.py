"""Decides which WebDAV servers may get the credentials: media descriptors contain whole addresses.

Those in ``[webdav] hosts``, else only servers of the site (our decision): internal ones, and those of the organisation of
RWS and RCS. Names are resolved once, so that a later change has no effect. Metadata addresses of clouds are forbidden.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from muxer.errors import AccessDenied, Code

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

ANY_HOST = "*"
Address = IPv4Address | IPv6Address
Resolve = Callable[[str], Sequence[str]]

# How long a resolved name is cached: transfers of a recording are seconds apart.
ADDRESS_CACHE_SECONDS = 30.0
_MAX_CACHED_NAMES = 1000
# The addresses of a name are tried one after the other, each with the connect timeout.
MAX_ADDRESSES = 8
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Names that do not exist in the public DNS (RFC 2606, 6761, 6762, 8375, and others in common use).
_INTERNAL_SUFFIXES = frozenset(
    ("local", "localhost", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "test")
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
# Metadata addresses of clouds besides the link-local ones: AWS (IPv6), Alibaba, Azure, Oracle.
_METADATA_ADDRESSES = frozenset(
    ip_address(one)
    for one in ("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
# Addresses that end with an IPv4 address, to which a gateway may forward (RFC 6052, 8215, 4291, 2765).
_IPV4_EMBEDDING_NETWORKS = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")))


class AllowedHosts:
    """The allowed WebDAV servers. Safe to use from any thread."""

    def __init__(self, listed: Sequence[str], site: Iterable[str], resolve: Resolve | None = None) -> None:
        """`listed` is ``[webdav] hosts``, `site` the addresses of RWS and RCS; `resolve` returns the addresses of a name."""
        self._listed = listed
        self._site = frozenset(name.lower() for one in site if (name := urlsplit(one).hostname))
        self._organisations = {found for name in self._site if (found := _organisation_domain(name))}
        self._resolve = resolve or _resolve_name
        self._lock = threading.Lock()
        self._safe: set[str] = set()
        self._cache: dict[str, tuple[float, Sequence[str]]] = {}

    def resolve(self, scheme: str, host: str, port: int | None) -> Sequence[str]:
        """Return the addresses to connect to. Raises AccessDenied when it is not allowed, OSError when not found."""
        name = host.lower().rstrip(".")
        literal = _literal_address(name)
        if scheme not in _DEFAULT_PORTS:
            raise _denied_error(name, f"has the scheme {scheme[:20]}", "use an http or https address")
        if literal is None and not _is_host_name(name):
            raise _denied_error(name, "has no valid host name", "correct its address")
        is_listed = any(_entry_matches(one, name, port or _DEFAULT_PORTS[scheme]) for one in self._listed)
        if self._listed and not is_listed:
            raise _denied_error(name, "is not in [webdav] hosts", "add it there")
        if not is_listed:
            self._check_scheme(scheme, name, literal)
        # Resolved once: a second look-up could return other addresses than those that are checked.
        addresses = [str(literal)] if literal else self._lookup_addresses(name)
        found = [ip_address(one.partition("%")[0]) for one in addresses]
        is_named = literal is not None and any(urlsplit(f"//{one}").hostname == name for one in self._listed)
        if not (is_listed and is_named) and any(map(_is_forbidden, found)):
            what = "name it in [webdav] hosts" if literal else "give it another address"
            raise _denied_error(name, f"has the address {', '.join(map(str, found))}, which is never a storage", what)
        is_ours = is_listed or name in self._site or _is_internal_name(name, literal)
        is_ours = is_ours or _organisation_domain(name) in self._organisations
        if not is_ours and not (found and all(map(_is_internal_address, found))):
            raise _denied_error(name, "does not belong to this site", "name it in [webdav] hosts")
        return addresses[:MAX_ADDRESSES]

    def _check_scheme(self, scheme: str, name: str, literal: Address | None) -> None:
        with self._lock:
            if scheme == "http" and name in self._safe and not _is_loopback(name, literal):
                raise _denied_error(name, "used https before and is now requested by http", "name it in [webdav] hosts")

    def _lookup_addresses(self, name: str) -> Sequence[str]:
        with self._lock:
            since, found = self._cache.get(name, (0.0, ()))
        if not found or time.monotonic() - since > ADDRESS_CACHE_SECONDS:
            since, found = time.monotonic(), self._resolve(name)
            with self._lock:
                if len(self._cache) >= _MAX_CACHED_NAMES:
                    self._cache.clear()
                self._cache[name] = (since, found)
        return found

    def remember_https(self, host: str) -> None:
        """Remember that a server supports https: from now on http is refused for it."""
        with self._lock:
            self._safe.add(host.lower().rstrip("."))


def _denied_error(name: str, why: str, what: str) -> AccessDenied:
    return AccessDenied(
        f"the WebDAV server {name[:200]} {why}, so nothing is sent to it; if it is one of yours, {what}",
        code=Code.FOREIGN_SERVER,
    )


def _entry_matches(entry: str, name: str, port: int) -> bool:
    """Whether an entry of the option matches a server: ``*``, ``*.domain``, or a host, with or without a port."""
    parts = urlsplit(f"//{entry}")
    wanted = parts.hostname or ""
    fits = wanted in (name, ANY_HOST) or (wanted.startswith("*.") and name.endswith(wanted[1:]))
    return fits and parts.port in (None, port)


def _literal_address(name: str) -> Address | None:
    """Return the address of a numeric host, also in the unusual forms that systems accept (``0x7f.1``)."""
    try:
        return ip_address(name.partition("%")[0])
    except ValueError:
        pass
    try:
        return ip_address(socket.inet_aton(name))
    except (OSError, ValueError):
        return None


def _is_host_name(name: str) -> bool:
    """Whether `name` consists of valid labels (RFC 1123, and underscores)."""
    return len(name) <= 253 and all(map(_LABEL.fullmatch, name.split(".")))


def _is_internal_name(name: str, literal: Address | None) -> bool:
    if literal is not None:
        return _is_internal_address(literal)
    return name.rpartition(".")[2] in _INTERNAL_SUFFIXES or "." not in name


def _contained_addresses(address: Address) -> Iterator[Address]:
    yield address
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            yield address.ipv4_mapped
        if address.sixtofour:
            yield address.sixtofour
        if address.teredo:
            yield from address.teredo
        if any(address in network for network in _IPV4_EMBEDDING_NETWORKS) and not address.is_loopback:
            yield IPv4Address(int(address) & 0xFFFFFFFF)


def _is_forbidden(address: Address) -> bool:
    """Whether an address is never connected to, whatever its name: it is no storage, but may serve secrets."""
    return any(
        one in _METADATA_ADDRESSES or one.is_link_local or one.is_multicast or one.is_unspecified or _is_unused(one)
        for one in _contained_addresses(address)
    )


def _is_unused(address: Address) -> bool:
    """Whether no host has the IPv4 address: 0.x.x.x, and 240.x.x.x and above."""
    return isinstance(address, IPv4Address) and (address.is_reserved or int(address) < 1 << 24)


def _is_internal_address(address: Address) -> bool:
    inner = address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
    if isinstance(inner, IPv6Address) and not inner.is_loopback and len(list(_contained_addresses(inner))) > 1:
        return False
    return not inner.is_global and not _is_forbidden(inner)


def _is_loopback(name: str, literal: Address | None) -> bool:
    return literal.is_loopback if literal else name == "localhost"


def _organisation_domain(name: str) -> str | None:
    """Return the registered domain of a host (``bank.co.uk``), None for public suffixes and addresses."""
    return None if _literal_address(name) or not _is_host_name(name) else _load_suffixes().privatesuffix(name)


@cache
def _load_suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


def _resolve_name(name: str) -> Sequence[str]:
    return list(dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)))
