"""Creates the services of a job from the configuration."""

from __future__ import annotations

import threading
from pathlib import Path

from muxer import __version__
from muxer.config.schema import Config
from muxer.crypto.envelope import Encryptor
from muxer.gir.deviations import DeviationLog
from muxer.gir.publish import Publisher
from muxer.gir.rcs import RcsClient, rcs_root
from muxer.gir.rws import RwsClient
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.media.engine import MediaEngine
from muxer.media.ffmpeg import MediaTools
from muxer.media.padding_cache import PaddingCache
from muxer.net.circuit_breaker import PAUSED_EFFECT, RCS, RWS, CircuitBreaker
from muxer.net.service_advice import ServiceAdvisor
from muxer.net.step_retry import Repeater
from muxer.pipeline.incomplete_sources import ArrivalTracker
from muxer.pipeline.job import MAX_PARALLEL_FETCHES
from muxer.pipeline.kept_results import KeptResults
from muxer.pipeline.services import Services
from muxer.pipeline.superseded import SupersededCleaner
from muxer.pipeline.workspace import Workspace, temp_folder_for
from muxer.status.activity import Activity
from muxer.storage.base import S3, WEBDAV
from muxer.storage.s3 import S3Storage
from muxer.storage.stores import Stores
from muxer.storage.webdav import WebdavStorage
from muxer.system.process import Runner
from muxer.system.thread_helpers import HelperThreads

# The effect of an unavailable service on a migration, for the log message: nothing is paused there, attempts are limited.
MIGRATION_EFFECT = "recordings that fail because of it are not retried later; run the migration again when it is available"


def build_services(
    config: Config,
    tools: MediaTools,
    runner: Runner,
    workspace: Workspace,
    stop: threading.Event,
    circuit_breaker: CircuitBreaker | None = None,
) -> Services:
    """Return the services of `config`. Nothing is sent yet."""
    advanced, circuit_breaker = config.advanced, circuit_breaker or create_circuit_breaker(config, _outage_effect(config))
    rws = create_rws(config, stop, circuit_breaker)
    engine = MediaEngine(
        tools,
        runner,
        tolerance=advanced.max_overlap_allowed,
        slice_ms=advanced.video_padding_slice_length_ms,
        audio_codec=advanced.audio_codec,
        paddings=PaddingCache(workspace.padding),
    )
    stores = create_stores(config, workspace.instance_mark, workspace.uploading, stop, circuit_breaker)
    repeat, results = Repeater(circuit_breaker, stop), _create_kept_results(config, workspace)
    workspace.disk.spare = results.evict_oldest
    return Services(
        rws=rws,
        rcs=create_rcs(config, stop, circuit_breaker, rws.deviations),
        stores=stores,
        engine=engine,
        encryptor=Encryptor(config.processing.openssl, runner),
        publisher=Publisher(rws, workspace.publishing, repeat),
        superseded=SupersededCleaner(rws, stores, workspace.deleting, repeat),
        workspace=workspace,
        incoming=create_arrival_tracker(config),
        results=results,
        repeat=repeat,
        circuit_breaker=circuit_breaker,
        activity=Activity(),
        helpers=HelperThreads(advanced.worker_threads, MAX_PARALLEL_FETCHES - 1, stop),
        stop=stop,
    )


def create_circuit_breaker(config: Config, effect: str = PAUSED_EFFECT) -> CircuitBreaker:
    """Return the circuits of the services of a configuration, whose errors name the option that causes them."""
    return CircuitBreaker(effect, ServiceAdvisor(config).advise)


def _outage_effect(config: Config) -> str:
    return MIGRATION_EFFECT if config.advanced.call_recording_query_string else PAUSED_EFFECT


def create_arrival_tracker(config: Config) -> ArrivalTracker:
    """Return the tracker of files that may still be uploading; all processes of an instance share its records."""
    folder = temp_folder_for(config.processing.temp_dir, config.instance_name).absolute() / "incoming"
    migrates = bool(config.advanced.call_recording_query_string)
    return ArrivalTracker(folder, config.advanced.incomplete_after, single_look=migrates)


def _create_kept_results(config: Config, workspace: Workspace) -> KeptResults:
    """Return the muxed files that are kept for another attempt, only those of this version and these options."""
    advanced = config.advanced
    options = {
        "version": __version__,
        "max_overlap_allowed": advanced.max_overlap_allowed,
        "slice": advanced.video_padding_slice_length_ms,
        "audio_codec": advanced.audio_codec,
    }
    return KeptResults(workspace.kept, options)


def create_rws(config: Config, stop: threading.Event, circuit_breaker: CircuitBreaker) -> RwsClient:
    """Return the client of RWS."""
    htcc = config.htcc
    account = ServiceAccount(RWS, htcc.base_uri, htcc.username, htcc.password, htcc.trusted_ca, htcc.rws_timeout)
    return RwsClient(ServiceSession(account, stop, circuit_breaker), htcc.contact_center_id)


def create_stores(
    config: Config, mark: str, uploading: Path, stop: threading.Event, circuit_breaker: CircuitBreaker
) -> Stores:
    """Return the storages. `mark` identifies the instance in temporary names, `uploading` is the folder of records."""
    return Stores(
        {
            WEBDAV: WebdavStorage(
                config.webdav,
                mark,
                uploading,
                stop,
                circuit_breaker,
                site_addresses(config),
                Repeater(circuit_breaker, stop),
            ),
            S3: S3Storage(config.s3, uploading, stop, circuit_breaker),
        }
    )


def site_addresses(config: Config) -> tuple[str, str]:
    """Return the addresses that determine which servers belong to the site."""
    return config.htcc.base_uri, config.rcs.base_uri or ""


def create_rcs(
    config: Config, stop: threading.Event, circuit_breaker: CircuitBreaker, deviations: DeviationLog | None = None
) -> RcsClient | None:
    """Return the client of RCS, None without `[rcs] base_uri`. It counts differences of the server in `deviations`."""
    rcs = config.rcs
    if rcs.base_uri is None:
        return None
    account = ServiceAccount(
        RCS, rcs_root(rcs.base_uri), rcs.username, rcs.password, rcs.trusted_ca, config.htcc.rws_timeout
    )
    return RcsClient(ServiceSession(account, stop, circuit_breaker), config.htcc.contact_center_id, deviations)
