"""A worker of the fleet: takes orders from RabbitMQ, does them as a muxer of its own would, and tells the pollers.

An order is acknowledged after the work. A worker that dies, or loses the broker, leaves its orders to others; one that is
stopped gives back what it has not finished.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dramatiq
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from muxer import __version__
from muxer.config.schema import Config
from muxer.errors import MuxerError, OrderFailed, Stopped, Transient
from muxer.fleet import events, orders
from muxer.fleet.broker import ACTOR, FleetBroker
from muxer.fleet.connection import HEARTBEAT_SECONDS, silence_library_logging
from muxer.fleet.consumer import ReceivedOrder
from muxer.fleet.control_connection import RECONNECT_SECONDS, ControlConnection
from muxer.fleet.event_reporter import EventReporter
from muxer.fleet.events import Event
from muxer.fleet.locks import TargetLocks
from muxer.fleet.orders import Order
from muxer.journal.journal import TargetKey
from muxer.net.circuit_breaker import RWS
from muxer.pipeline.job import Job, JobOptions, Services
from muxer.pipeline.shared_temp import recover_abandoned
from muxer.pipeline.workspace import create_cleaner
from muxer.scheduling.attempts import TargetProcessor
from muxer.status.fleet_status import DISK_SERVICE
from muxer.status.state_file import STATE_FILE, StateFile, snapshot_json
from muxer.system.masking import Mask
from muxer.system.process import Runner

log = logging.getLogger(__name__)

WORKER_HEARTBEAT_INTERVAL = 5.0
TICK_SECONDS, STATE_SECONDS = 0.5, 2.0
# How often one order may try a service that is out, and what others have left half done is looked at.
RECOVERY_INTERVAL = 60.0
# All of them together: less than the ten seconds in which a worker stops, also while RabbitMQ does not answer.
GRACE_SECONDS, CANCEL_SECONDS, LEAVE_SECONDS, CLOSE_SECONDS = 5.0, 2.0, 2.5, 1.5
# RabbitMQ hands out the order of a worker that it has lost a little before it drops the lock: each is another connection.
LOCK_WAIT_SECONDS, LOCK_RETRY_INTERVAL = 2.5 * HEARTBEAT_SECONDS, 1.0
# A worker that lives and has lost its connections takes its locks again within so long, after a restart of RabbitMQ.
REDELIVERY_DELAY_SECONDS = 2 * RECONNECT_SECONDS
_EXPECTED_ERRORS = (Stopped, OrderFailed)


class FleetWorker:
    """One worker process, with ``worker_threads`` threads."""

    def __init__(self, config: Config, name: str, services: Services, runner: Runner) -> None:
        """Given the configuration, the name of its folder and the services, connect to nothing yet. Raise ``ValueError``
        when the certificates of ``[fleet] trusted_ca`` cannot be read."""
        silence_library_logging()
        self._config, self._services, self._runner, self._stop = config, services, runner, services.stop
        fleet, threads = config.fleet, config.advanced.worker_threads
        self._name, self._mask = f"{socket.gethostname()}/{name}/{os.getpid()}", Mask(config.secret_values)
        self._locks = TargetLocks(fleet.queue)
        self._line = ControlConnection(
            fleet, self._name, services.outages, self._locks.restore_locks, self._send_heartbeat, WORKER_HEARTBEAT_INTERVAL
        )
        self._settling = _AckMiddleware()
        self._reporter = EventReporter(self._line.send_event, self._name, self._mask, lambda: self._settling.message_id)
        job = Job(services, JobOptions.from_config(config.advanced))
        self._work = TargetProcessor(job, services.outages, services.activity, self._stop, self._reporter)
        self._broker = FleetBroker(fleet, self._name, services.outages, [self._settling], self._may_take)
        dramatiq.actor(broker=self._broker, queue_name=fleet.queue, actor_name=ACTOR, throws=_EXPECTED_ERRORS)(
            self._process_order
        )
        self._worker = Worker(self._broker, queues={fleet.queue}, worker_threads=threads)
        self._worker.queue_prefetch = threads * fleet.prefetch
        self._state = StateFile(services.workspace.path / STATE_FILE, name, self._mask)
        self._cleaning = create_cleaner(config, services.workspace)

    def run(self) -> None:
        """Work until a signal stops it."""
        self._clean_workspace()
        self._line.start()
        self._worker.start()
        threading.Thread(target=self._recover_periodically, name="left-overs", daemon=True).start()
        while not self._stop.wait(TICK_SECONDS):
            self._clean_workspace()
            self._write_state()
        self._shut_down()

    def _may_take(self) -> bool:
        """Whether an order may be taken now: what would only fail stays in its lane, for others."""
        services = self._services
        return (
            not self._stop.is_set()
            # Orders whose connection broke are worked on to their end.
            and len(self._locks.locked_targets) < self._worker.queue_prefetch
            and self._line.is_connected
            and services.workspace.disk.has_room()
            and not services.outages.is_any_blocked({RWS})
        )

    def _process_order(self, **message: Any) -> None:
        """Do an order. What this raises decides what becomes of its message."""
        try:
            order = orders.order_from_dict(message)
        except OrderFailed as error:
            key = TargetKey(*(str(message.get(name, ""))[:200] for name in ("file", "recording")))
            log.error("an order is refused and put among the dead letters: %s", error)
            self._reporter.refused(key, str(error))
            raise
        with self._locked_target(order) as is_ours:
            key = TargetKey(order.file, order.recording)
            if is_ours:
                self._work.find_and_process(key, order.attempts)
            else:
                self._reporter.dropped(key)

    @contextmanager
    def _locked_target(self, order: Order) -> Iterator[bool]:
        """Within this block, no other worker begins the same target; yield False when one has begun it already."""
        again = self._settling.is_redelivered
        if self._stop.wait(REDELIVERY_DELAY_SECONDS if again else 0.0):
            raise Stopped("stopped before the recording was begun")
        deadline = time.monotonic() + (LOCK_WAIT_SECONDS if again else 0.0)
        while not (taken := self._acquire_lock(order.file)) and time.monotonic() < deadline:
            if self._stop.wait(LOCK_RETRY_INTERVAL):
                raise Stopped("stopped before the recording was begun")
        if not taken:
            yield False
            return
        try:
            yield True
        finally:
            with suppress(MuxerError):
                self._locks.release_lock(self._line, order.file)

    def _acquire_lock(self, file: str) -> bool:
        """Take the lock of a target; return False when another has it. Wait while the line is out: RabbitMQ counts how often
        an order is given back, and gives it up in the end."""
        while True:
            try:
                return self._locks.acquire_lock(self._line, file)
            except Transient as error:
                log.debug("no lock of %s yet: %s", file, error)
            if self._stop.wait(LOCK_RETRY_INTERVAL):
                raise Stopped("stopped before the recording was begun")

    def _send_heartbeat(self, _connection: Any) -> None:
        """Tell the pollers how this worker stands; the line calls this every few seconds."""
        snapshot = snapshot_json(self._services.activity.take_snapshot())
        out = {name: self._mask(reason) for name, (_, reason) in self._services.outages.open_circuits().items()}
        if not self._services.workspace.disk.has_room():
            out[DISK_SERVICE] = "its disk is nearly full, no new recording is begun"
        details = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "threads": self._config.advanced.worker_threads,
            "held": sorted({*self._broker.held_targets, *self._locks.locked_targets}),
            "out": out,
            **{name: snapshot[name] for name in ("started", "running", "totals")},
        }
        self._line.send_event(Event(events.WORKER, self._name, details=details))

    def _recover_periodically(self) -> None:
        """Finish what workers that died have left half done, and let one order try what is out, now and then."""
        services = self._services
        while True:
            services.outages.allow_trial()
            try:
                recover_abandoned(services.workspace, services.workspace.path.parent)
                services.recover_leftovers()
            except MuxerError as error:
                log.info("what was left half done waits: %s", error)
            except Exception:
                log.exception("what was left half done cannot be finished; it is tried again")
            if self._stop.wait(RECOVERY_INTERVAL):
                return

    def _clean_workspace(self) -> None:
        self._services.workspace.restore_folder()
        if removed := self._cleaning.clean_if_due(not self._locks.locked_targets):
            log.info("%d left-over folders removed from the temporary folder", removed)

    def _write_state(self) -> None:
        services = self._services
        snapshot = services.activity.take_snapshot()
        queued = max(0, len(self._broker.held_targets) - len(snapshot.running))
        self._state.write_state(snapshot, queued, services.outages.open_circuits(), services.workspace.disk.has_room())

    def _shut_down(self) -> None:
        """Give running jobs a moment, then end them; their orders go back to the others."""
        log.info("stopping")
        deadline = time.monotonic() + GRACE_SECONDS
        while self._locks.locked_targets and time.monotonic() < deadline:
            time.sleep(0.1)
        if self._locks.locked_targets:
            log.warning("recordings that are still being worked on are given back to the fleet")
        self._runner.cancel_all()
        self._stop_consuming()
        self._line.send_event(Event(events.GONE, self._name))
        self._line.close(CLOSE_SECONDS)
        self._services.helpers.close()
        self._state.remove_file()
        self._services.workspace.remove_job_folders()
        log.info("stopped")

    def _stop_consuming(self) -> None:
        """End dramatiq's threads and close the connection of the orders. On a line that is dead, pika waits for an answer
        until the heartbeat is missed; RabbitMQ gives the orders to others in any case."""
        patience = int(CANCEL_SECONDS * 1000)
        leaving = threading.Thread(target=self._worker.stop, args=(patience,), name="leaving", daemon=True)
        leaving.start()
        leaving.join(LEAVE_SECONDS)


class _AckMiddleware(Middleware):
    """Decides what becomes of the message of an order: acknowledged after the work; given back when this worker stops;
    refused after anything else."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def actor_options(self) -> set[str]:
        """The errors that are no news to dramatiq."""
        return {"throws"}

    @property
    def is_redelivered(self) -> bool:
        """Whether the order of this thread was handed out before."""
        return bool(getattr(self._local, "redelivered", False))

    @property
    def message_id(self) -> str:
        """The id of the message of this thread's order."""
        return str(getattr(self._local, "message", ""))

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Remember which order it is, and whether it was handed out before."""
        self._local.redelivered = isinstance(message, ReceivedOrder) and message.redelivered
        self._local.message = message.message_id

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Note what is to become of it; the consumer says it to RabbitMQ."""
        if isinstance(exception, Stopped) and isinstance(message, ReceivedOrder):
            message.give_back = True
        elif exception is not None:
            message.fail()
