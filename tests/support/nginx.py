"""A real nginx with its WebDAV modules on a loopback port, from the system's package, with its own configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lab.dav import ExternalDav
from tests.support.ports import free_port
from tests.support.tls import pem_bundle, self_signed
from tests.support.web_server import PASSWORD, USER, run_server, server_folder

MODULE = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")
CONFIG = """\
load_module {module};
{account}
worker_processes 2;
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log {root}/access.log;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{
    listen 127.0.0.1:{port};
    root {root}/data;
    auth_basic recordings;
    auth_basic_user_file {root}/passwords;
    dav_methods PUT DELETE MKCOL COPY MOVE;
    dav_ext_methods PROPFIND OPTIONS;
    {more}
  }}
}}
"""
TLS_PROXY = """\
{account}
pid {root}/nginx.pid;
error_log {root}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {root}/body;
  proxy_temp_path {root}/proxy;
  fastcgi_temp_path {root}/fastcgi;
  uwsgi_temp_path {root}/uwsgi;
  scgi_temp_path {root}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {root}/server.pem;
    ssl_certificate_key {root}/server.pem;
    client_max_body_size 0;
    location / {{
      proxy_pass {target};
      proxy_set_header Host $http_host;
    }}
  }}
}}
"""
# The default limit of nginx is 1 MB.
ANY_LENGTH = "client_max_body_size 0;"


@contextmanager
def run_nginx(more: str = ANY_LENGTH) -> Iterator[ExternalDav]:
    """Run a server and yield its description for the lab; `more` is text for its block `server`."""
    with server_folder("nginx") as root:
        port = free_port()
        account = "user www-data;" if os.getuid() == 0 else ""
        text = CONFIG.format(root=root, port=port, module=MODULE, account=account, more=more)
        with _run_configured(root, text, port):
            yield ExternalDav(f"http://127.0.0.1:{port}", root / "data", USER, PASSWORD)


@contextmanager
def run_tls_proxy(behind: ExternalDav) -> Iterator[ExternalDav]:
    """Yield the server `behind` through a proxy that terminates TLS and forwards requests unchanged by http."""
    with server_folder("nginx-proxy") as root:
        port, identity = free_port(), self_signed("proxy", "127.0.0.1")
        (root / "server.pem").write_bytes(identity.key_pem + pem_bundle(identity))
        account = "user www-data;" if os.getuid() == 0 else ""
        with _run_configured(root, TLS_PROXY.format(root=root, port=port, account=account, target=behind.url), port):
            yield replace(behind, url=f"https://127.0.0.1:{port}")


@contextmanager
def _run_configured(root: Path, text: str, port: int) -> Iterator[None]:
    (root / "nginx.conf").write_text(text)
    command = ["nginx", "-p", root, "-e", root / "error.log", "-c", root / "nginx.conf", "-g", "daemon off;"]
    with run_server(command, port):
        yield
