"""A real RabbitMQ node for tests, with separate ports, name and folder, without epmd and plugins.

A start takes about four seconds, half of them of one core, and a node 150 MB of memory; a clean stop takes one second.
A virtual host is created in some milliseconds.

MUXER_RABBITMQ_ROOT selects another RabbitMQ than that of this machine: the folder of a Debian that
``tests/platforms/debian.sh make`` has created with the package rabbitmq-server.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.support.ports import reserved_port
from tests.support.requirements import require_file
from tests.support.tls import HOST, Identity, pem_bundle

PROGRAM = "usr/lib/rabbitmq/bin/rabbitmq-server"  # the one on PATH must be run by root or rabbitmq
ROOT = Path(os.environ.get("MUXER_RABBITMQ_ROOT") or "/")
ENTER = Path(__file__).resolve().parents[1] / "platforms" / "debian.sh"
USER, PASSWORD = "muxer", "geheim @:/%1"
TIMEOUT_SECONDS = 60
STARTED_LINE = b"Server startup complete"
NOT_CONNECTED = "failed to connect to node"
MEMORY_BYTES = 1 << 30
_PR_SET_PDEATHSIG = 1
# Loaded here: a child between fork and exec must not load libraries. On Windows no test uses it.
_LIBC: Any = ctypes.CDLL(None) if os.name == "posix" else None


@dataclass(frozen=True)
class ClusterSeat:
    """Where a node listens for other nodes. All nodes of a cluster have the same `port` and the same `cookie`."""

    address: str
    port: int
    cookie: str = ""

    @property
    def node_name(self) -> str:
        """The name of the node in the cluster."""
        return f"muxer@{self.address}"


class RabbitNode:
    """A RabbitMQ node: ``with RabbitNode(folder) as node``. Its data and ports survive a stop and a kill.

    It listens at `host`; `before` is a prefix of its command. With a `certificate` it supports amqps too. In a cluster,
    `seat` is its place there. The kernel kills it when the thread that started it ends.
    """

    def __init__(
        self,
        folder: Path,
        host: str = HOST,
        before: Sequence[str] = (),
        certificate: Identity | None = None,
        seat: ClusterSeat | None = None,
    ) -> None:
        self.folder, self.host, self.log = folder, host, folder / "rabbitmq.log"
        shared = [] if Path("/") == ROOT else [str(ENTER), "run", str(ROOT), "--share", str(folder)]
        self.certificate, self._before = certificate, [*before, *shared]
        self._held = ExitStack()
        self.port, self.secure_port, self._distribution = (self._held.enter_context(reserved_port()) for _ in range(3))
        self._seat = seat or ClusterSeat(HOST, self._distribution)
        self._name = self._seat.node_name if seat else f"muxer-{self._distribution}@localhost"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RabbitNode:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._held.close()

    @property
    def process_id(self) -> int:
        """The process id of the running node; its other processes descend from this one."""
        assert self._process is not None
        return self._process.pid

    @property
    def version(self) -> str:
        """The version of RabbitMQ of the running node."""
        return self.evaluate_erlang("rabbit_misc:version()").strip('"')

    def node_url(self, vhost: str = "/", user: str = USER, password: str = PASSWORD, secure: bool = False) -> str:
        """Return the URL of a virtual host, including the account; the one of amqps if `secure`."""
        scheme, port = ("amqps", self.secure_port) if secure else ("amqp", self.port)
        return f"{scheme}://{quote(user, '')}:{quote(password, '')}@{self.host}:{port}/{quote(vhost, '')}"

    def start(self) -> None:
        """Start the node with its stored data and wait until it is ready; do nothing while it runs."""
        if self._process is not None:
            return
        require_file(ROOT / PROGRAM, "RabbitMQ")
        self._write_config()
        with self.log.open("ab") as log:
            log_offset = log.tell()
            self._process = subprocess.Popen(
                [*self._before, f"/{PROGRAM}"],
                cwd=self.folder,
                env=self._build_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only the tests, which then stop the node
                preexec_fn=_death_signal_setter(os.getpid()),
            )
        try:
            self._wait_until_ready(self._process, log_offset)
            # Otherwise the node looks for an epmd every minute.
            self.evaluate_erlang("ok = supervisor:terminate_child(rabbit_sup, rabbit_epmd_monitor_sup)")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop the node cleanly; it notifies its clients."""
        self._end_process(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the node with SIGKILL, as in a power failure."""
        self._end_process(signal.SIGKILL)

    def restart(self) -> None:
        """Restart the node with its stored data."""
        self.stop()
        self.start()

    def add_vhost(self, vhost: str, user: str, password: str) -> None:
        """Create a virtual host, and an account that has all permissions there and none elsewhere."""
        v, u, everything = _erlang_binary(vhost), _erlang_binary(user), ", ".join(['<<".*">>'] * 3)
        self.evaluate_erlang(f'ok = rabbit_vhost:add({v}, <<"tests">>)')
        self.evaluate_erlang(f'ok = rabbit_auth_backend_internal:add_user({u}, {_erlang_binary(password)}, <<"tests">>)')
        self.evaluate_erlang(f'ok = rabbit_auth_backend_internal:set_permissions({u}, {v}, {everything}, <<"tests">>)')
        self.flush_to_disk()

    def flush_to_disk(self) -> None:
        """Write declared queues to the disk: a queue of the last two seconds does not survive a kill.

        The messages of a quorum queue are on the disk when they are confirmed, but Mnesia and Ra write
        the queue itself later. RabbitMQ 4.3 has no Mnesia.
        """
        mnesia = "mnesia:system_info(is_running) =:= no orelse (ok = mnesia:sync_log())"
        self.evaluate_erlang(f"{mnesia}, [ok = dets:sync(Table) || Table <- dets:all()]")

    def acknowledge_within(self, seconds: float, tick: float) -> None:
        """Set the acknowledgement timeout for new channels; the node checks it every `tick` seconds.

        The defaults are 30 minutes and a check every minute; they apply again after a restart.
        """
        for name, value in (("consumer_timeout", seconds), ("channel_tick_interval", tick)):
            self.evaluate_erlang(f"ok = application:set_env(rabbit, {name}, {round(value * 1000)})")

    def join_cluster(self, other: RabbitNode) -> None:
        """Give up the data of this node and join the cluster of another one."""
        is_new = "element(1, code:ensure_loaded(rabbit_db_cluster)) =:= module"
        function = f"case {is_new} of true -> fun rabbit_db_cluster:join/2; false -> fun rabbit_mnesia:join_cluster/2 end"
        join = f"Join = {function}, ok = Join('{other._name}', disc)"
        self.evaluate_erlang(f"ok = rabbit:stop(), {join}, ok = rabbit:start()")

    def remove_vhost(self, vhost: str, user: str) -> None:
        """Delete a virtual host with its content, and an account; connections are closed."""
        self.evaluate_erlang(f'rabbit_vhost:delete({_erlang_binary(vhost)}, <<"tests">>)')
        self.evaluate_erlang(f'rabbit_auth_backend_internal:delete_user({_erlang_binary(user)}, <<"tests">>)')

    def evaluate_erlang(self, expression: str) -> str:
        """Let the node evaluate an Erlang expression; return its value in Erlang syntax."""
        command = [*self._before, _erl_call(), "-r", "-address", f"{self._seat.address}:{self._seat.port}", "-e"]
        deadline = time.monotonic() + TIMEOUT_SECONDS
        # The node name that erl_call uses may still be taken; then nothing was evaluated.
        while NOT_CONNECTED in (done := self._run_erl_call(command, expression)).stderr and time.monotonic() < deadline:
            time.sleep(0.1)
        assert done.returncode == 0 and done.stdout.startswith("{ok, "), f"{expression}: {done.stdout} {done.stderr}"
        return done.stdout[len("{ok, ") : -1]

    def _run_erl_call(self, command: Sequence[str], expression: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            input=f"{expression}.\n",
            env=self._build_environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    def _wait_until_ready(self, process: subprocess.Popen[bytes], log_offset: int) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while STARTED_LINE not in (text := self.log.read_bytes()[log_offset:]):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"RabbitMQ does not start:\n{text.decode(errors='replace')[-6000:]}")
            time.sleep(0.05)

    def _end_process(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(TIMEOUT_SECONDS)
            raise
        finally:
            self._process = None

    def _write_config(self) -> None:
        """Write the configuration of the node in the format that is read fastest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "tcp_listeners": f"[{{{json.dumps(self.host)}, {self.port}}}]",
            "default_user": _erlang_binary(USER),
            "default_pass": _erlang_binary(PASSWORD),
            "loopback_users": "[]",
            "disk_free_limit": "1000000",
            "vm_memory_high_watermark": f"{{absolute, {MEMORY_BYTES}}}",
            **self._tls_settings(),
        }
        terms = ", ".join(f"{{{name}, {value}}}" for name, value in settings.items())
        (self.folder / "node.config").write_text(f"[{{rabbit, [{terms}]}}].\n")
        (self.folder / "plugins").write_text("[].\n")
        if self._seat.cookie and not (cookie := self.folder / ".erlang.cookie").exists():
            cookie.write_text(self._seat.cookie)
            cookie.chmod(0o400)

    def _tls_settings(self) -> dict[str, str]:
        if self.certificate is None:
            return {}
        key, chain = self.folder / "key.pem", self.folder / "certificate.pem"
        key.write_bytes(self.certificate.key_pem)
        chain.write_bytes(pem_bundle(self.certificate))
        return {
            "ssl_listeners": f"[{{{json.dumps(self.host)}, {self.secure_port}}}]",
            "ssl_options": f"[{{certfile, {json.dumps(str(chain))}}}, {{keyfile, {json.dumps(str(key))}}}]",
        }

    def _build_environment(self) -> dict[str, str]:
        distribution = f"-kernel inet_dist_use_interface {{{self._seat.address.replace('.', ',')}}}"
        kind = "-name" if self._seat.cookie else "-sname"
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),  # contains the Erlang cookie
            "ERL_EPMD_PORT": "1",  # do not register with an epmd of the machine
            "ERL_AFLAGS": "-start_epmd false",  # and start none in child processes
            "RABBITMQ_ALLOW_INPUT": "1",  # run the node without a shell in between
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_USE_LONGNAME": "true" if self._seat.cookie else "false",
            "RABBITMQ_CONFIG_FILE": str(self.folder / "node.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(self.folder / "feature_flags"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            # A node that has a name from the start does not look for an epmd.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(
                ["-noinput", distribution, f"-erl_epmd_port {self._seat.port} {kind} {self._name}"]
            ),
        }


def _erlang_binary(text: str) -> str:
    return f"<<{json.dumps(text)}>>"


def _erl_call() -> str:
    """Return the path of erl_call, the client of an Erlang node, in `ROOT`."""
    erl = shutil.which("erl", path=None if Path("/") == ROOT else str(ROOT / "usr/bin"))
    assert erl, "Erlang is missing: ./install.sh --test installs it, with RabbitMQ"
    return f"/{next(Path(erl).resolve().parents[1].glob('erts-*/bin/erl_call')).relative_to(ROOT.resolve())}"


def _death_signal_setter(parent: int) -> Callable[[], None]:
    """Return a function for a child process that asks the kernel to kill it when its parent dies."""

    def set_death_signal() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return set_death_signal
