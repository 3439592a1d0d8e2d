"""The further parameters of a poll, by the option and by the version of RWS (guide: call_recording_extra_query_string)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from muxer.config import load
from muxer.gir.rws import Rws
from muxer.gir.session import Account, Session
from muxer.journal import Journal
from muxer.lab.lab import Lab
from muxer.outages import Outages
from muxer.poller import Poller

BUILT_IN = {"userData": ["SRSScreenRecordingStateStarted"], "scanAndScroll": ["true"]}


@pytest.mark.parametrize(
    ("version", "option", "extra", "asked"),
    [
        ("8.5.201.14", "", BUILT_IN, True),
        ("8.5.201.13", "", {}, True),
        ("", "", {}, True),
        ("8.5.201.14", "disable", {}, False),
        ("8.5.201.13", "userData=tom* jerry", {"userData": ["tom* jerry"]}, False),
    ],
    ids=["new", "old", "unreadable", "disable", "own"],
)
def test_the_extra_query_of_a_poll(
    make_lab: Callable[..., Lab], tmp_path: Path, version: str, option: str, extra: dict[str, list[str]], asked: bool
) -> None:
    lab, file = make_lab(version=version), tmp_path / "muxer.cfg"
    file.write_text(lab.config_text(**{"advanced.call_recording_extra_query_string": option}))
    config = load(file, {}, {}).config
    account = Account("RWS", lab.rws_url, config.htcc.username, config.htcc.password, False, 30)
    rws = Rws(Session(account, threading.Event()), lab.ccid)
    Poller(config, rws, Journal(None), Outages(), lambda _target: True).poll()
    first = next(one.path for one in lab.store.requests if "startTime=" in one.path)
    query = parse_qs(urlsplit(first).query, keep_blank_values=True)
    own = ("startTime", "endTime", "limit")
    assert {name: values for name, values in query.items() if name not in own} == extra
    assert any("version" in one.path for one in lab.store.requests) == asked
