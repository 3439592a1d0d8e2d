"""``check`` against WebDAV servers as real sites set them up: what the administrator reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from lab.cases import Case
from lab.dav import ExternalDav
from lab.lab import Lab
from tests.support.apache import DIGEST, GENESYS_FOLDER, READ_ONLY, run_apache
from tests.support.checklist import Checklist, ChecklistLine, run_check, write_check_config
from tests.support.lighttpd import run_lighttpd
from tests.support.nginx import run_nginx, run_tls_proxy
from tests.support.tiers import spread_variants

CHECK_PREFIX = "recording-muxer-check-"


@contextmanager
def proxied_apache() -> Iterator[ExternalDav]:
    with run_apache() as behind, run_tls_proxy(behind) as server:
        yield server


@dataclass(frozen=True)
class ServerSetup:
    """The setup of a server, and the expected line for the folder of screen files; ``read`` without ``--write``."""

    server: partial[AbstractContextManager[ExternalDav]]
    status: str
    found: str
    advice: str = ""
    read: str = "ok"


NO_MOVE = "<Limit MOVE>\nRequire all denied\n</Limit>"
SETUPS = {
    "Apache": ServerSetup(
        partial(run_apache), "ok", "credentials accepted, media exist; a file of 4 MB was uploaded and deleted"
    ),
    "Apache of the guide": ServerSetup(partial(run_apache, GENESYS_FOLDER), "ok", "uploaded and deleted"),
    "nginx": ServerSetup(partial(run_nginx), "ok", "uploaded and deleted"),
    "nginx as it comes": ServerSetup(
        partial(run_nginx, ""), "failed", "HTTP 413 to an upload of", "follow the text, then run check again"
    ),
    "lighttpd": ServerSetup(partial(run_lighttpd), "ok", "uploaded and deleted"),
    "Digest": ServerSetup(
        partial(run_apache, DIGEST, modules=("auth_digest",)), "ok", "credentials accepted (Digest), media exist"
    ),
    "read-only": ServerSetup(
        partial(run_apache, more=READ_ONLY),
        "failed",
        "so the password is right, but the account may not write",
        "read and write access",
    ),
    "no MOVE": ServerSetup(
        partial(run_apache, more=f"<Location /screens>\n{NO_MOVE}\n</Location>"),
        "warning",
        "but not renamed: MOVE",
        "allow MOVE for this folder",
    ),
    "no WebDAV": ServerSetup(
        partial(run_apache, "Dav Off"), "failed", "does not offer WebDAV in this folder", "follow the text", read="failed"
    ),
    "a proxy that ends TLS": ServerSetup(partial(proxied_apache), "ok", "uploaded and deleted"),
}


def folder_line(found: Checklist) -> ChecklistLine:
    [line] = [line for line in found.lines if line.check.startswith("WebDAV folder") and line.check.endswith("/screens/")]
    return line


@pytest.mark.parametrize("name", spread_variants(SETUPS, 3))
def test_each_server_setup_is_reported(kept_lab: type[Lab], tmp_path: Path, name: str) -> None:
    setup = SETUPS[name]
    with setup.server() as server, kept_lab(tmp_path / "lab", dav=server) as lab:
        lab.add_case(Case.PLAIN)
        config = write_check_config(lab, tmp_path)
        before = sorted((server.root / "screens").iterdir())
        assert folder_line(run_check(config)).status == setup.read
        found = run_check(config, "--write")
        line = folder_line(found)
        assert line.status == setup.status and setup.found in line.found and setup.advice in line.advice, line
        assert found.exit_code == (1 if setup.status == "failed" else 0)
        assert sorted((server.root / "screens").iterdir()) == before
        multiviews = [one for one in found.bad_lines if one.check.startswith("WebDAV MultiViews")]
        assert len(multiviews) == (2 if name == "Apache of the guide" else 0)
        assert all("remove MultiViews from the line Options" in one.advice for one in multiviews)


def test_the_limit_of_nginx_is_named(kept_lab: type[Lab], tmp_path: Path) -> None:
    with run_nginx("") as server, kept_lab(tmp_path / "lab", dav=server) as lab:
        lab.add_case(Case.PLAIN)
        found = folder_line(run_check(write_check_config(lab, tmp_path), "--write")).found
        assert "raise client_max_body_size in nginx (1 MB unless set)" in found
