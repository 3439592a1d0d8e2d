"""Which WebDAV servers are spoken to, without and with the option ``[webdav] hosts`` (SECURITY.md)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from muxer.config import types
from muxer.errors import AccessDenied
from muxer.storage.hosts import Hosts

RWS, RCS = "https://rws.gir.bank.com:8081", "http://10.1.2.3:8008/rcs"


def no_dns(name: str) -> Sequence[str]:
    raise AssertionError(f"{name} was looked up")


def hosts(*listed: str, site: Sequence[str] = (RWS, RCS), addresses: Sequence[str] | None = None) -> Hosts:
    return Hosts(listed, site, no_dns if addresses is None else lambda _: addresses)


AT_THE_SITE = [
    *("localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "::ffff:10.0.0.1", "davhost", "dav.localhost"),
    *("10.0.0.7", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::7", "10.1.2.3", "0x7f.1"),
    *("dav.local", "dav.corp", "dav1.media.internal", "dav.test", "rws.gir.bank.com", "RWS.gir.Bank.com."),
    *("dav.gir.bank.com", "files.bank.com", "bank.com"),
]


@pytest.mark.parametrize("host", AT_THE_SITE)
def test_servers_of_the_site_need_no_option_and_no_look_up(host: str) -> None:
    assert hosts().admit("http", host, None) == ()


ELSEWHERE = [
    *("evil.com", "dav.evil.com", "bank.com.evil.com", "evilbank.com", "bank.co", "xn--bnk-0la.com", "local.evil.com"),
    *("8.8.8.8", "134744072", "0x08080808", "2001:4860:4860::8888", "::ffff:8.8.8.8"),
    *("169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "10.1.2.3.evil.com"),
]


@pytest.mark.parametrize("host", ELSEWHERE)
def test_servers_elsewhere_are_refused_with_their_name_and_the_option(host: str) -> None:
    with pytest.raises(AccessDenied) as caught:
        hosts(addresses=["93.184.216.34"]).admit("http", host, None)
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
    rule = hosts(addresses=addresses)
    if admitted:
        assert rule.admit("https", "storage.other-name.com", None) == addresses
    else:
        with pytest.raises(AccessDenied):
            rule.admit("https", "storage.other-name.com", None)


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
    ],
)
def test_a_server_of_the_organisation_of_rws_is_of_the_site(rws: str, dav: str, same: bool) -> None:
    rule = hosts(site=(rws, ""), addresses=["93.184.216.34"])
    if same:
        assert rule.admit("https", dav, None) == ()
    else:
        with pytest.raises(AccessDenied):
            rule.admit("https", dav, None)


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
    rule = hosts(*types.hosts(listed))
    if admitted:
        assert rule.admit(scheme, host, port) == ()
    else:
        with pytest.raises(AccessDenied, match=r"\[webdav\] hosts"):
            rule.admit(scheme, host, port)


@pytest.mark.parametrize("value", ["http://dav", "dav/path", "dav:port", "dav:0", "dav:99999", "a b", "u@dav", "**", "*x"])
def test_what_is_no_list_of_servers_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"dav\.example\.com"):
        types.hosts(value)


def test_no_list_is_none() -> None:
    assert types.hosts("") == types.hosts(" , ") == ()


def test_who_has_answered_over_https_is_not_spoken_to_over_http_any_more() -> None:
    rule = hosts()
    rule.admit("http", "dav.bank.com", None)
    rule.spoke_safely("DAV.bank.com")
    rule.admit("https", "dav.bank.com", None)
    with pytest.raises(AccessDenied, match="over https before"):
        rule.admit("http", "dav.bank.com", 8080)
    rule.admit("http", "dav2.bank.com", None)


def test_on_this_machine_and_for_listed_servers_both_are_right() -> None:
    for rule, host in ((hosts(), "127.0.0.1"), (hosts(), "localhost"), (hosts("dav.bank.com"), "dav.bank.com")):
        rule.spoke_safely(host)
        assert rule.admit("http", host, None) == ()
