"""A worker of the fleet: processes tasks and acknowledges them after the work; RabbitMQ requeues unfinished ones."""

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
from muxer.gir.targets import TargetOptions
from muxer.journal.journal import TargetKey
from muxer.log.outputs import describe_output
from muxer.net.circuit_breaker import RWS
from muxer.pipeline.job import Job
from muxer.pipeline.services import Services
from muxer.pipeline.shared_temp import recover_abandoned
from muxer.pipeline.workspace import TempFolderCleaner
from muxer.scheduling.attempts import TargetProcessor
from muxer.status.fleet_status import DISK_SERVICE
from muxer.status.state_file import STATE_FILE, StateFile, snapshot_json
from muxer.system.masking import Mask
from muxer.system.process import Runner

log = logging.getLogger(__name__)

WORKER_HEARTBEAT_INTERVAL = 5.0
TICK_SECONDS, STATE_SECONDS = 0.5, 2.0
# How often one task may try an unavailable service, and the files of workers that died are recovered.
RECOVERY_INTERVAL = 60.0
# Together less than the ten seconds in which a worker stops, also while RabbitMQ does not respond.
GRACE_SECONDS, CANCEL_SECONDS, LEAVE_SECONDS, CLOSE_SECONDS = 5.0, 2.0, 2.5, 1.5
# RabbitMQ requeues the task of a lost worker a little before it drops its lock: they are on different connections.
LOCK_WAIT_SECONDS, LOCK_RETRY_INTERVAL = 2.5 * HEARTBEAT_SECONDS, 1.0
# Within this time, a worker that has lost its connections takes its locks again after a restart of RabbitMQ.
REDELIVERY_DELAY_SECONDS = 2 * RECONNECT_SECONDS
_EXPECTED_ERRORS = (Stopped, OrderFailed)


class FleetWorker:
    """One worker process, with ``worker_threads`` threads."""

    def __init__(self, config: Config, name: str, services: Services, runner: Runner) -> None:
        silence_library_logging()
        self._config, self._services, self._runner, self._stop = config, services, runner, services.stop
        fleet, threads = config.fleet, config.advanced.worker_threads
        self._name, self._mask = f"{socket.gethostname()}/{name}/{os.getpid()}", Mask(config.secret_values)
        self._locks = TargetLocks(fleet.queue)
        self._control = ControlConnection(
            fleet,
            self._name,
            services.circuit_breaker,
            self._locks.restore_locks,
            self._send_heartbeat,
            WORKER_HEARTBEAT_INTERVAL,
        )
        self._acks = _AckMiddleware()
        self._reporter = EventReporter(self._control.send_event, self._name, self._mask, lambda: self._acks.message_id)
        job = Job(services, TargetOptions.from_config(config.advanced))
        self._work = TargetProcessor(job, services.circuit_breaker, services.activity, self._stop, self._reporter)
        self._broker = FleetBroker(fleet, self._name, services.circuit_breaker, [self._acks], self._may_take)
        dramatiq.actor(broker=self._broker, queue_name=fleet.queue, actor_name=ACTOR, throws=_EXPECTED_ERRORS)(
            self._process_order
        )
        self._worker = Worker(self._broker, queues={fleet.queue}, worker_threads=threads)
        self._worker.queue_prefetch = threads * fleet.prefetch
        self._state = StateFile(
            services.workspace.path / STATE_FILE, name, self._mask, describe_output(config.logfile, name)
        )
        self._cleaner = TempFolderCleaner.from_config(config.processing, services.workspace)

    def run(self) -> None:
        """Process tasks until a signal stops the worker."""
        self._clean_workspace()
        self._control.start()
        self._worker.start()
        threading.Thread(target=self._recover_periodically, name="recovery", daemon=True).start()
        while not self._stop.wait(TICK_SECONDS):
            self._clean_workspace()
            self._write_state()
        self._shut_down()

    def _may_take(self) -> bool:
        """Whether a task may be taken now. A task that would fail here stays in its queue for other workers."""
        services = self._services
        return (
            not self._stop.is_set()
            # Tasks whose connection broke are still processed to the end.
            and len(self._locks.locked_targets) < self._worker.queue_prefetch
            and self._control.is_connected
            and services.workspace.disk.has_room()
            and not services.circuit_breaker.is_any_blocked({RWS})
        )

    def _process_order(self, **message: Any) -> None:
        """Process a task. The middleware settles its message by what this raises."""
        try:
            order = orders.order_from_dict(message)
        except OrderFailed as error:
            key = TargetKey(*(str(message.get(name, ""))[:200] for name in ("file", "recording")))
            log.error("task rejected, it becomes a dead letter: %s", error)
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
        """Hold the lock of a target within this block; yield False when another worker has it."""
        redelivered = self._acks.is_redelivered
        if self._stop.wait(REDELIVERY_DELAY_SECONDS if redelivered else 0.0):
            raise Stopped("stopped before the recording was started")
        deadline = time.monotonic() + (LOCK_WAIT_SECONDS if redelivered else 0.0)
        while not (locked := self._acquire_lock(order.file)) and time.monotonic() < deadline:
            if self._stop.wait(LOCK_RETRY_INTERVAL):
                raise Stopped("stopped before the recording was started")
        if not locked:
            yield False
            return
        try:
            yield True
        finally:
            with suppress(MuxerError):
                self._locks.release_lock(self._control, order.file)

    def _acquire_lock(self, file: str) -> bool:
        """Take the lock of a target; False when another worker has it. Waits while the connection is broken."""
        while True:
            try:
                return self._locks.acquire_lock(self._control, file)
            except Transient as error:
                log.debug("cannot take the lock of %s yet: %s", file, error)
            if self._stop.wait(LOCK_RETRY_INTERVAL):
                raise Stopped("stopped before the recording was started")

    def _send_heartbeat(self, connection: Any) -> None:
        self._locks.drop_left_locks(connection)
        snapshot = snapshot_json(self._services.activity.take_snapshot())
        out = {name: self._mask(reason) for name, (_, reason) in self._services.circuit_breaker.open_circuits().items()}
        if not self._services.workspace.disk.has_room():
            out[DISK_SERVICE] = "its disk is nearly full, no new recording is started"
        details = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "threads": self._config.advanced.worker_threads,
            "held": sorted({*self._broker.held_targets, *self._locks.locked_targets}),
            "out": out,
            **{name: snapshot[name] for name in ("started", "running", "totals")},
        }
        self._control.send_event(Event(events.WORKER, self._name, details=details))

    def _recover_periodically(self) -> None:
        """Recover the unfinished work of workers that died, and let one task try each unavailable service, once a minute."""
        services = self._services
        while True:
            services.circuit_breaker.allow_trial()
            try:
                recover_abandoned(services.workspace, services.workspace.path.parent)
                services.recover_leftovers()
            except MuxerError as error:
                log.info("recovery of unfinished work is delayed: %s", error)
            except Exception:
                log.exception("recovery of unfinished work failed with an unexpected error; retrying in a minute")
            if self._stop.wait(RECOVERY_INTERVAL):
                return

    def _clean_workspace(self) -> None:
        self._services.workspace.restore_folder()
        if removed := self._cleaner.clean_if_due(not self._locks.locked_targets):
            log.info("%d leftover folders removed from the temporary folder", removed)

    def _write_state(self) -> None:
        services = self._services
        snapshot = services.activity.take_snapshot()
        queued = max(0, len(self._broker.held_targets) - len(snapshot.running))
        out, has_room = services.circuit_breaker.service_states(), services.workspace.disk.has_room()
        self._state.write_state(snapshot, queued, out, has_room)

    def _shut_down(self) -> None:
        """Give running jobs a few seconds, then stop them; their tasks are requeued."""
        log.info("stopping")
        deadline = time.monotonic() + GRACE_SECONDS
        while self._locks.locked_targets and time.monotonic() < deadline:
            time.sleep(0.1)
        if self._locks.locked_targets:
            log.warning("recordings still in progress are requeued for other workers")
        self._runner.cancel_all()
        self._stop_consuming()
        self._control.send_event(Event(events.GONE, self._name))
        self._control.close(CLOSE_SECONDS)
        self._services.helpers.close()
        self._state.remove_file()
        self._services.workspace.remove_job_folders()
        log.info("stopped")

    def _stop_consuming(self) -> None:
        """Stop the threads of dramatiq and close the connection, without the wait of pika on a dead one."""
        timeout_ms = int(CANCEL_SECONDS * 1000)
        stopping = threading.Thread(target=self._worker.stop, args=(timeout_ms,), name="stopping", daemon=True)
        stopping.start()
        stopping.join(LEAVE_SECONDS)


class _AckMiddleware(Middleware):
    """Settles the message of a task: acknowledged after the work, requeued when this worker stops, else rejected."""

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def actor_options(self) -> set[str]:
        """The actor option for errors that dramatiq does not log."""
        return {"throws"}

    @property
    def is_redelivered(self) -> bool:
        return bool(getattr(self._local, "redelivered", False))

    @property
    def message_id(self) -> str:
        return str(getattr(self._local, "message", ""))

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._local.redelivered = isinstance(message, ReceivedOrder) and message.redelivered
        self._local.message = message.message_id

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Mark the message for the consumer, which settles it."""
        if isinstance(exception, Stopped) and isinstance(message, ReceivedOrder):
            message.requeue = True
        elif exception is not None:
            message.fail()
