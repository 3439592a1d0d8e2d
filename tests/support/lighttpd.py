"""A real lighttpd with mod_webdav on a loopback port, from the system's package, with its own configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from lab.dav import ExternalDav
from tests.support.ports import free_port
from tests.support.web_server import PASSWORD, USER, run_server, server_folder

CONFIG = """\
server.modules = ("mod_auth", "mod_authn_file", "mod_webdav")
server.document-root = "{root}/data"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{root}/error.log"
server.stat-cache-engine = "disable"
server.upload-dirs = ("{root}/uploads")
{account}
mimetype.assign = (".mp4" => "video/mp4", "" => "application/octet-stream")
webdav.activate = "enable"
auth.backend = "htpasswd"
auth.backend.htpasswd.userfile = "{root}/passwords"
auth.require = ("/" => ("method" => "basic", "realm" => "recordings", "require" => "valid-user"))
{more}
"""


# Names that differ only in case are the same, as on IIS: files are stored in lower case.
IGNORING_CASE = 'server.force-lowercase-filenames = "enable"'


@contextmanager
def run_lighttpd(more: str = "") -> Iterator[ExternalDav]:
    """Run a server and yield its description for the lab; `more` is text for the end of its configuration."""
    with server_folder("lighttpd") as root:
        (root / "uploads").mkdir()
        (root / "uploads").chmod(0o777)
        port = free_port()
        account = 'server.username = "www-data"\nserver.groupname = "www-data"' if os.getuid() == 0 else ""
        (root / "lighttpd.conf").write_text(CONFIG.format(root=root, port=port, account=account, more=more))
        with run_server(["lighttpd", "-D", "-f", root / "lighttpd.conf"], port):
            yield ExternalDav(f"http://127.0.0.1:{port}", root / "data", USER, PASSWORD)
