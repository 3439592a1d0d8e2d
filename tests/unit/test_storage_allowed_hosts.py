"""Which WebDAV servers the muxer connects to, without and with the option ``[webdav] hosts`` (SECURITY.md)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from muxer.config import types
from muxer.errors import AccessDenied
from muxer.storage.allowed_hosts import MAX_ADDRESSES, AllowedHosts

RWS, RCS = "https://rws.gir.bank.com:8081", "http://10.1.2.3:8008/rcs"


INSIDE_ADDRESSES = ["10.9.9.9"]


def create_hosts(
    *listed: str, site: Sequence[str] = (RWS, RCS), addresses: Sequence[str] = INSIDE_ADDRESSES
) -> AllowedHosts:
    return AllowedHosts(listed, site, lambda _: addresses)


ADDRESSES = [
    *("127.0.0.1", "127.9.9.9", "::1", "::ffff:10.0.0.1", "10.0.0.7", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::7"),
    *("10.1.2.3", "0x7f.1"),
]
SITE_HOSTS = [
    *("localhost", "LOCALHOST", "davhost", "dav.localhost"),
    *("dav.local", "dav.corp", "dav1.media.internal", "dav.test", "rws.gir.bank.com", "RWS.gir.Bank.com."),
    *("dav.gir.bank.com", "files.bank.com", "bank.com"),
]


@pytest.mark.parametrize("host", SITE_HOSTS)
@pytest.mark.parametrize("addresses", [INSIDE_ADDRESSES, ["93.184.216.34"], ["fd00::7", "2606:2800::1"]])
def test_servers_of_the_site_need_no_option_and_are_connected_to_by_their_addresses(host: str, addresses: list[str]) -> None:
    assert create_hosts(addresses=addresses).resolve("http", host, None) == addresses


@pytest.mark.parametrize("host", ADDRESSES)
def test_addresses_of_the_site_need_no_option(host: str) -> None:
    assert [ip_address(item) for item in create_hosts().resolve("http", host, None)] == [
        ip_address("127.0.0.1" if host == "0x7f.1" else host)
    ]


SECRET_HOSTS = [
    *("169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("fd00:ec2::23", "fd20:ce::254"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "2001:0:a9fe:a9fe::1", "::169.254.169.254"),
    *("2001:0:4136:e378:8000:63bf:5601:5601", "0.0.0.0", "::", "0.1.2.3", "224.0.0.1", "ff02::1", "255.255.255.255"),
]


@pytest.mark.parametrize("address", SECRET_HOSTS)
@pytest.mark.parametrize(
    "host", ["metadata.google.internal", "metadata", "dav.corp", "rws.gir.bank.com", "dav.bank.com", "x.evil.com"]
)
@pytest.mark.parametrize("others", [[], ["10.0.0.1"]])
def test_nothing_is_sent_to_cloud_metadata_addresses_under_any_name(address: str, host: str, others: list[str]) -> None:
    for listed in ((), (host,), ("*",)):
        with pytest.raises(AccessDenied, match=re.escape(host)):
            create_hosts(*types.parse_hosts(",".join(listed)), addresses=[*others, address]).resolve("http", host, None)


@pytest.mark.parametrize("address", SECRET_HOSTS)
def test_nothing_is_sent_to_cloud_metadata_addresses_directly(address: str) -> None:
    with pytest.raises(AccessDenied):
        create_hosts().resolve("http", address, None)
    for listed in ("dav.bank.com", "*", f"*.{address.rpartition('.')[2]}"):
        with pytest.raises(AccessDenied):
            create_hosts(listed).resolve("http", address, None)


def test_the_muxer_connects_to_any_listed_address() -> None:
    assert create_hosts("169.254.7.7").resolve("http", "169.254.7.7", None) == ["169.254.7.7"]


@pytest.mark.parametrize("address", ["2001:0:4136:e378:8000:63bf:f5ff:fffe", "2002:a00:1::1", "64:ff9b::a00:1"])
def test_an_address_that_others_carry_on_is_not_inside(address: str) -> None:
    with pytest.raises(AccessDenied):
        create_hosts(addresses=[address]).resolve("http", "storage.other-name.com", None)


@pytest.mark.parametrize(
    "host", ["", ".", "..", "a..b", "-x.corp", "x-.corp", "a b.corp", "x" * 64 + ".corp", "a/b", "a@b", "x:y", "\u00fc.corp"]
)
def test_an_invalid_host_name_is_refused(host: str) -> None:
    for listed in ((), ("*",)):
        with pytest.raises(AccessDenied, match="no valid host name"):
            create_hosts(*listed).resolve("http", host, None)


@pytest.mark.parametrize("listed", [(), ("*",), ("dav.corp",)])
def test_an_address_that_is_not_http_is_refused(listed: Sequence[str]) -> None:
    with pytest.raises(AccessDenied, match=r"dav\.corp has the scheme file"):
        create_hosts(*listed).resolve("file", "dav.corp", None)


def test_a_name_is_not_looked_up_for_every_request() -> None:
    resolved_names: list[str] = []

    def resolve_counted(name: str) -> Sequence[str]:
        resolved_names.append(name)
        return INSIDE_ADDRESSES

    rule = AllowedHosts((), (RWS,), resolve_counted)
    for _ in range(100):
        rule.resolve("http", "dav.corp", None)
    assert resolved_names == ["dav.corp"]


def test_only_checked_addresses_are_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds also when the cached addresses expire and the name then resolves to others."""
    monkeypatch.setattr("muxer.storage.allowed_hosts.ADDRESS_CACHE_SECONDS", -1.0)
    resolutions = iter([INSIDE_ADDRESSES, ["169.254.169.254"]])
    assert AllowedHosts((), (RWS,), lambda _: next(resolutions)).resolve("http", "dav.corp", None) == INSIDE_ADDRESSES


def test_all_of_very_many_addresses_are_checked_and_some_are_tried() -> None:
    many = [f"10.0.{number // 250}.{number % 250}" for number in range(4000)]
    assert create_hosts(addresses=many).resolve("http", "dav.corp", None) == many[:MAX_ADDRESSES]
    with pytest.raises(AccessDenied):
        create_hosts(addresses=[*many, "169.254.169.254"]).resolve("http", "dav.corp", None)


FOREIGN_HOSTS = [
    *("evil.com", "dav.evil.com", "bank.com.evil.com", "evilbank.com", "bank.co", "xn--bnk-0la.com", "local.evil.com"),
    *("8.8.8.8", "134744072", "0x08080808", "2001:4860:4860::8888", "::ffff:8.8.8.8"),
    *("169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "10.1.2.3.evil.com"),
]


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_servers_elsewhere_are_refused_with_their_name_and_the_option(host: str) -> None:
    with pytest.raises(AccessDenied) as caught:
        create_hosts(addresses=["93.184.216.34"]).resolve("http", host, None)
    assert host in str(caught.value) and "[webdav] hosts" in str(caught.value)


@pytest.mark.parametrize(
    ("addresses", "admitted"),
    [
        (["10.0.0.1"], True),
        (["127.0.0.1", "::1", "fd00::9"], True),
        (["10.0.0.1", "93.184.216.34"], False),
        (["169.254.169.254"], False),
        ([], False),
    ],
)
def test_another_name_counts_by_all_of_its_addresses_and_only_they_are_used(addresses: list[str], admitted: bool) -> None:
    rule = create_hosts(addresses=addresses)
    if admitted:
        assert rule.resolve("https", "storage.other-name.com", None) == addresses
    else:
        with pytest.raises(AccessDenied):
            rule.resolve("https", "storage.other-name.com", None)


@pytest.mark.parametrize(
    ("rws", "dav", "same"),
    [
        ("https://gir.bank.co.uk", "dav.bank.co.uk", True),
        ("https://bank.co.uk", "evil.co.uk", False),
        ("https://gir.bank.com.au", "evil.com.au", False),
        ("https://gir.db.com", "dav.db.com", True),
        ("https://gir.bank.de:8081", "dav.store.bank.de", True),
        ("https://ec2-1.compute.amazonaws.com", "ec2-2.compute.amazonaws.com", False),
        ("https://203.0.113.5", "evil.com", False),
        ("https://1.2.3.4", "9.2.3.4", False),
        ("https://1.2.3.4", "1.2.3.4", True),
        ("https://gir.example.github.io", "dav.example.github.io", True),
        ("https://bank.github.io", "evil.github.io", False),
        ("https://bank.blob.core.windows.net", "evil.blob.core.windows.net", False),
        ("https://bank.kawasaki.jp", "evil.kawasaki.jp", False),
        ("https://gir.bank.xn--p1ai", "dav.bank.xn--p1ai", True),
    ],
)
def test_a_server_of_the_organisation_of_rws_is_of_the_site(rws: str, dav: str, same: bool) -> None:
    rule = create_hosts(site=(rws, ""), addresses=["93.184.216.34"])
    if same:
        assert rule.resolve("https", dav, None)
    else:
        with pytest.raises(AccessDenied):
            rule.resolve("https", dav, None)


@pytest.mark.parametrize(
    ("listed", "scheme", "host", "port", "admitted"),
    [
        ("dav.example.com", "http", "DAV.example.com", None, True),
        ("dav.example.com", "https", "dav.example.com", 8443, True),
        ("dav.example.com:8443", "https", "dav.example.com", 8443, True),
        ("dav.example.com:443", "https", "dav.example.com", None, True),
        ("dav.example.com:8443", "https", "dav.example.com", None, False),
        ("a.example.com, b.example.com", "http", "b.example.com", None, True),
        ("dav.example.com", "http", "10.0.0.1", None, False),
        ("dav.example.com", "http", "localhost", None, False),
        ("*.example.com", "http", "x.y.example.com", None, True),
        ("*.example.com", "http", "badexample.com", None, False),
        ("*", "http", "anything.net", 81, True),
        ("[fd00::7]:81", "http", "fd00::7", 81, True),
        ("8.8.8.8", "http", "8.8.8.8", None, True),
    ],
)
def test_the_option_is_the_whole_list(listed: str, scheme: str, host: str, port: int | None, admitted: bool) -> None:
    rule = create_hosts(*types.parse_hosts(listed))
    if admitted:
        assert rule.resolve(scheme, host, port)
    else:
        with pytest.raises(AccessDenied, match=r"\[webdav\] hosts"):
            rule.resolve(scheme, host, port)


@pytest.mark.parametrize("value", ["http://dav", "dav/path", "dav:port", "dav:0", "dav:99999", "a b", "u@dav", "**", "*x"])
def test_an_invalid_list_of_servers_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"dav\.example\.com"):
        types.parse_hosts(value)


def test_an_empty_list_means_no_option() -> None:
    assert types.parse_hosts("") == types.parse_hosts(" , ") == ()


def test_after_a_response_over_https_a_server_is_not_called_over_http() -> None:
    rule = create_hosts()
    rule.resolve("http", "dav.bank.com", None)
    rule.remember_https("DAV.bank.com")
    rule.resolve("https", "dav.bank.com", None)
    with pytest.raises(AccessDenied, match="used https before"):
        rule.resolve("http", "dav.bank.com", 8080)
    rule.resolve("http", "dav2.bank.com", None)


def test_loopback_and_listed_servers_allow_both_schemes() -> None:
    for rule, host in (
        (create_hosts(), "127.0.0.1"),
        (create_hosts(), "localhost"),
        (create_hosts("dav.bank.com"), "dav.bank.com"),
    ):
        rule.remember_https(host)
        assert rule.resolve("http", host, None)
