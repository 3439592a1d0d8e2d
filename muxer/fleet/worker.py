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
from muxer.errors import GivenUp, MuxerError, Stopped, Transient
from muxer.fleet import events, orders
from muxer.fleet.broker import ACTOR, FleetBroker
from muxer.fleet.connection import HEARTBEAT_SECONDS, quiet
from muxer.fleet.consumer import Taken
from muxer.fleet.events import Event
from muxer.fleet.line import RECONNECT_SECONDS, Line
from muxer.fleet.locks import Locks
from muxer.fleet.orders import Order
from muxer.fleet.reporter import Reporter
from muxer.fleet.view import DISK
from muxer.guests import adopt
from muxer.job import Job, JobOptions, Services
from muxer.journal import Key
from muxer.masking import Mask
from muxer.outages import RWS
from muxer.process import Runner
from muxer.services import cleaning_of
from muxer.state import STATE, StateFile, plain
from muxer.work import Work

log = logging.getLogger(__name__)

TELL_SECONDS = 5.0
TICK_SECONDS, STATE_SECONDS = 0.5, 2.0
# How often one order may try a service that is out, and what others have left half done is looked at.
TRIAL_SECONDS = 60.0
# All of them together: less than the ten seconds in which a worker stops, also while RabbitMQ does not answer.
GRACE_SECONDS, CANCEL_SECONDS, LEAVE_SECONDS, CLOSE_SECONDS = 5.0, 2.0, 2.5, 1.5
# RabbitMQ hands out the order of a worker that it has lost a little before it drops the lock: each is another connection.
LOCK_PATIENCE_SECONDS, LOCK_LOOK_SECONDS = 2.5 * HEARTBEAT_SECONDS, 1.0
# A worker that lives and has lost its connections takes its locks again within so long, after a restart of RabbitMQ.
RETURN_SECONDS = 2 * RECONNECT_SECONDS
_EXPECTED = (Stopped, GivenUp)


class FleetWorker:
    """One worker process, with ``worker_threads`` threads."""

    def __init__(self, config: Config, name: str, services: Services, runner: Runner) -> None:
        """Given the configuration, the name of its folder and the services, connect to nothing yet. Raise ``ValueError``
        when the certificates of ``[fleet] trusted_ca`` cannot be read."""
        quiet()
        self._config, self._services, self._runner, self._stop = config, services, runner, services.stop
        fleet, threads = config.fleet, config.advanced.worker_threads
        self._name, self._mask = f"{socket.gethostname()}/{name}/{os.getpid()}", Mask(config.secrets)
        self._locks = Locks(fleet.queue)
        self._line = Line(fleet, self._name, services.outages, self._locks.opened, self._tell_standing, TELL_SECONDS)
        self._settling = _Settling()
        self._reporter = Reporter(self._line.tell, self._name, self._mask, lambda: self._settling.message)
        job = Job(services, JobOptions.of(config.advanced))
        self._work = Work(job, services.outages, services.activity, self._stop, self._reporter)
        self._broker = FleetBroker(fleet, self._name, services.outages, [self._settling], self._may_take)
        dramatiq.actor(broker=self._broker, queue_name=fleet.queue, actor_name=ACTOR, throws=_EXPECTED)(self._take)
        self._worker = Worker(self._broker, queues={fleet.queue}, worker_threads=threads)
        self._worker.queue_prefetch = threads * fleet.prefetch
        self._state = StateFile(services.workspace.path / STATE, name, self._mask)
        self._cleaning = cleaning_of(config, services.workspace)

    def run(self) -> None:
        """Work until a signal stops it."""
        self._clean()
        self._line.start()
        self._worker.start()
        threading.Thread(target=self._look_after, name="left-overs", daemon=True).start()
        while not self._stop.wait(TICK_SECONDS):
            self._clean()
            self._tell_state()
        self._shut_down()

    def _may_take(self) -> bool:
        """Whether an order may be taken now: what would only fail stays in its lane, for others."""
        services = self._services
        return (
            not self._stop.is_set()
            # Orders whose connection broke are worked on to their end.
            and len(self._locks.files) < self._worker.queue_prefetch
            and self._line.is_connected
            and services.workspace.disk.has_room()
            and not services.outages.blocks({RWS})
        )

    def _take(self, **message: Any) -> None:
        """Do an order. What this raises decides what becomes of its message."""
        try:
            order = orders.from_plain(message)
        except GivenUp as error:
            key = Key(*(str(message.get(name, ""))[:200] for name in ("file", "recording")))
            log.error("an order is refused and put among the dead letters: %s", error)
            self._reporter.refused(key, str(error))
            raise
        with self._held(order) as is_ours:
            key = Key(order.file, order.recording)
            if is_ours:
                self._work.find_and_do(key, order.attempts)
            else:
                self._reporter.dropped(key)

    @contextmanager
    def _held(self, order: Order) -> Iterator[bool]:
        """Within this block, no other worker begins the same target; yield False when one has begun it already."""
        again = self._settling.is_redelivered
        if self._stop.wait(RETURN_SECONDS if again else 0.0):
            raise Stopped("stopped before the recording was begun")
        deadline = time.monotonic() + (LOCK_PATIENCE_SECONDS if again else 0.0)
        while not (taken := self._hold(order.file)) and time.monotonic() < deadline:
            if self._stop.wait(LOCK_LOOK_SECONDS):
                raise Stopped("stopped before the recording was begun")
        if not taken:
            yield False
            return
        try:
            yield True
        finally:
            with suppress(MuxerError):
                self._locks.release(self._line, order.file)

    def _hold(self, file: str) -> bool:
        """Take the lock of a target; return False when another has it. Wait while the line is out: RabbitMQ counts how often
        an order is given back, and gives it up in the end."""
        while True:
            try:
                return self._locks.hold(self._line, file)
            except Transient as error:
                log.debug("no lock of %s yet: %s", file, error)
            if self._stop.wait(LOCK_LOOK_SECONDS):
                raise Stopped("stopped before the recording was begun")

    def _tell_standing(self, _connection: Any) -> None:
        """Tell the pollers how this worker stands; the line calls this every few seconds."""
        snapshot = plain(self._services.activity.snapshot())
        out = {name: self._mask(reason) for name, (_, reason) in self._services.outages.now_out().items()}
        if not self._services.workspace.disk.has_room():
            out[DISK] = "its disk is nearly full, no new recording is begun"
        details = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "threads": self._config.advanced.worker_threads,
            "held": sorted({*self._broker.held, *self._locks.files}),
            "out": out,
            **{name: snapshot[name] for name in ("started", "running", "totals")},
        }
        self._line.tell(Event(events.WORKER, self._name, details=details))

    def _look_after(self) -> None:
        """Finish what workers that died have left half done, and let one order try what is out, now and then."""
        services = self._services
        while True:
            services.outages.new_poll()
            try:
                adopt(services.workspace, services.workspace.path.parent)
                services.finish_left_overs()
            except MuxerError as error:
                log.info("what was left half done waits: %s", error)
            except Exception:
                log.exception("what was left half done cannot be finished; it is tried again")
            if self._stop.wait(TRIAL_SECONDS):
                return

    def _clean(self) -> None:
        self._services.workspace.restore()
        if removed := self._cleaning.tick(not self._locks.files):
            log.info("%d left-over folders removed from the temporary folder", removed)

    def _tell_state(self) -> None:
        services = self._services
        snapshot = services.activity.snapshot()
        queued = max(0, len(self._broker.held) - len(snapshot.running))
        self._state.write(snapshot, queued, services.outages.now_out(), services.workspace.disk.has_room())

    def _shut_down(self) -> None:
        """Give running jobs a moment, then end them; their orders go back to the others."""
        log.info("stopping")
        deadline = time.monotonic() + GRACE_SECONDS
        while self._locks.files and time.monotonic() < deadline:
            time.sleep(0.1)
        if self._locks.files:
            log.warning("recordings that are still being worked on are given back to the fleet")
        self._runner.cancel()
        self._leave()
        self._line.tell(Event(events.GONE, self._name))
        self._line.close(CLOSE_SECONDS)
        self._services.helpers.close()
        self._state.remove()
        self._services.workspace.close()
        log.info("stopped")

    def _leave(self) -> None:
        """End dramatiq's threads and close the connection of the orders. On a line that is dead, pika waits for an answer
        until the heartbeat is missed; RabbitMQ gives the orders to others in any case."""
        patience = int(CANCEL_SECONDS * 1000)
        leaving = threading.Thread(target=self._worker.stop, args=(patience,), name="leaving", daemon=True)
        leaving.start()
        leaving.join(LEAVE_SECONDS)


class _Settling(Middleware):
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
    def message(self) -> str:
        """The id of the message of this thread's order."""
        return str(getattr(self._local, "message", ""))

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Remember which order it is, and whether it was handed out before."""
        self._local.redelivered = isinstance(message, Taken) and message.redelivered
        self._local.message = message.message_id

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        """Note what is to become of it; the consumer says it to RabbitMQ."""
        if isinstance(exception, Stopped) and isinstance(message, Taken):
            message.give_back = True
        elif exception is not None:
            message.fail()
