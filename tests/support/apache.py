"""A real Apache with mod_dav on a loopback port, from the system's package, with its own configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.dav import ExternalDav
from tests.support.ports import free_port
from tests.support.web_server import PASSWORD, USER, run_server, server_folder

MODULES_FOLDER = Path("/usr/lib/apache2/modules")
# Modules that a packaged Apache loads besides those for WebDAV and the account; some change WebDAV requests.
STOCK_MODULES = ("alias", "autoindex", "dir", "env", "filter", "mime", "negotiation", "setenvif")
NEEDED_MODULES = ("mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dav", "dav_fs")
CONFIG = """\
ServerRoot {root}
PidFile {root}/apache.pid
ErrorLog {root}/error.log
CustomLog {root}/access.log "%m %U %>s"
Listen 127.0.0.1:{port}
ServerName 127.0.0.1
{account}
{modules}
TypesConfig {root}/mime.types
DavLockDB {root}/lock
DocumentRoot {root}/data
<Directory {root}/data>
  Dav On
  AuthType Basic
  AuthName recordings
  AuthUserFile {root}/passwords
  Require valid-user
  {folder}
</Directory>
{more}
"""
# The media types of the system's file for recordings.
MIME_TYPES = "application/octet-stream bin\naudio/mpeg mp3\naudio/x-wav wav\nvideo/mp4 mp4\n"
# The folder of the recordings as configured in Genesys' guide for its WebDAV server.
GENESYS_FOLDER = """
  Options Indexes MultiViews FollowSymLinks
  AllowOverride None
"""
# Digest authentication; needs the module auth_digest.
DIGEST = """
  AuthType Digest
  AuthDigestProvider file
  AuthUserFile {root}/digest
"""
# The account may only read; every other request gets 401.
READ_ONLY = """
<Location /screens>
  <Limit GET HEAD OPTIONS PROPFIND>
    Require valid-user
  </Limit>
  <LimitExcept GET HEAD OPTIONS PROPFIND>
    Require user other-user
  </LimitExcept>
</Location>
"""


@contextmanager
def run_apache(folder: str = "", more: str = "", modules: tuple[str, ...] = ()) -> Iterator[ExternalDav]:
    """Run a server and yield its description for the lab.

    `folder` is configuration text for the block of the served folder and `more` is text after that block; both override
    the defaults, and {root} in them is the folder of the server. `modules` are loaded in addition.
    """
    with server_folder("apache") as root:
        port = free_port()
        account = "User www-data\nGroup www-data" if os.getuid() == 0 else ""
        loaded = "\n".join(
            f"LoadModule {module}_module {MODULES_FOLDER}/mod_{module}.so"
            for module in (*NEEDED_MODULES, *STOCK_MODULES, *modules)
        )
        folder, more = folder.format(root=root), more.format(root=root)
        text = CONFIG.format(root=root, port=port, modules=loaded, account=account, folder=folder, more=more)
        (root / "apache.conf").write_text(text)
        (root / "mime.types").write_text(MIME_TYPES)
        with run_server(["apache2", "-d", root, "-f", root / "apache.conf", "-DFOREGROUND"], port):
            yield ExternalDav(f"http://127.0.0.1:{port}", root / "data", USER, PASSWORD)
