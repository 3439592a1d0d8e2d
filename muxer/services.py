"""Puts the parts together: from a configuration to everything that a job talks to."""

from __future__ import annotations

import threading
from pathlib import Path

from muxer import __version__
from muxer.activity import Activity
from muxer.config.schema import Config
from muxer.crypto.envelope import Encryptor
from muxer.gir.deviations import Deviations
from muxer.gir.publish import Publisher
from muxer.gir.rcs import Rcs, root
from muxer.gir.rws import Rws
from muxer.gir.session import Account, Session
from muxer.incoming import IncomingFiles
from muxer.job import FETCHED_AT_ONCE, Services
from muxer.media.engine import Engine
from muxer.media.paddings import Paddings
from muxer.media.render import Tools
from muxer.outages import RCS, RWS, Outages
from muxer.parallel import Helpers
from muxer.process import Runner
from muxer.repeat import Repeater
from muxer.results import Results
from muxer.storage.base import S3, WEBDAV
from muxer.storage.s3 import S3Storage
from muxer.storage.stores import Stores
from muxer.storage.webdav import WebdavStorage
from muxer.superseded import Superseded
from muxer.workspace import Cleaning, Workspace, folder_of


def build(
    config: Config,
    tools: Tools,
    runner: Runner,
    workspace: Workspace,
    stop: threading.Event,
    outages: Outages | None = None,
) -> Services:
    """Given the configuration and what was made at the start, return the services. Nothing is sent yet."""
    advanced, outages = config.advanced, outages or Outages()
    rws = rws_of(config, stop, outages)
    engine = Engine(
        tools,
        runner,
        tolerance=advanced.max_overlap_allowed,
        slice_ms=advanced.video_padding_slice_length_ms,
        audio_codec=advanced.audio_codec,
        paddings=Paddings(workspace.padding),
    )
    stores = stores_of(config, workspace.mark, workspace.uploading, stop, outages)
    repeat, results = Repeater(outages, stop), _results_of(config, workspace)
    workspace.disk.spare = results.drop_oldest
    return Services(
        rws=rws,
        rcs=rcs_of(config, stop, outages, rws.deviations),
        stores=stores,
        engine=engine,
        encryptor=Encryptor(config.processing.openssl, runner),
        publisher=Publisher(rws, workspace.publishing, repeat),
        superseded=Superseded(rws, stores, workspace.deleting, repeat),
        workspace=workspace,
        incoming=incoming_of(config),
        results=results,
        repeat=repeat,
        outages=outages,
        activity=Activity(),
        helpers=Helpers(advanced.worker_threads, FETCHED_AT_ONCE - 1, stop),
        stop=stop,
    )


def incoming_of(config: Config) -> IncomingFiles:
    """Return what decides about files that may still be on their way.

    All processes of an instance share its notes: the muxer, the workers of a fleet on this machine, and the commands.
    """
    folder = folder_of(config.processing.temp_dir, config.instance).absolute() / "incoming"
    migrates = bool(config.advanced.call_recording_query_string)
    return IncomingFiles(folder, config.advanced.incomplete_after, single_look=migrates)


def _results_of(config: Config, workspace: Workspace) -> Results:
    """Return what keeps muxed files for another attempt. Those of another version or other options are not used."""
    advanced = config.advanced
    options = {
        "version": __version__,
        "max_overlap_allowed": advanced.max_overlap_allowed,
        "slice": advanced.video_padding_slice_length_ms,
        "audio_codec": advanced.audio_codec,
    }
    return Results(workspace.kept, options)


def cleaning_of(config: Config, workspace: Workspace) -> Cleaning:
    """Given the configuration and the temporary folder, return what cleans it."""
    processing = config.processing
    enabled, interval = processing.auto_clean_temp_folder, processing.clean_temp_folder_timeout
    return Cleaning(workspace, enabled=enabled, interval=interval)


def rws_of(config: Config, stop: threading.Event, outages: Outages) -> Rws:
    """Given the configuration, return the client of RWS."""
    htcc = config.htcc
    account = Account(RWS, htcc.base_uri, htcc.username, htcc.password, htcc.trusted_ca, htcc.rws_timeout)
    return Rws(Session(account, stop, outages), htcc.contact_center_id)


def stores_of(config: Config, mark: str, uploading: Path, stop: threading.Event, outages: Outages) -> Stores:
    """Given the configuration, a short name for this instance and the folder that keeps what is being uploaded, return the
    storages."""
    return Stores(
        {
            WEBDAV: WebdavStorage(
                config.webdav, mark, uploading, stop, outages, site_of(config), Repeater(outages, stop)
            ),
            S3: S3Storage(config.s3, uploading, stop, outages),
        }
    )


def site_of(config: Config) -> tuple[str, str]:
    """Given the configuration, return the addresses that say which servers belong to the site."""
    return config.htcc.base_uri, config.rcs.base_uri or ""


def rcs_of(
    config: Config, stop: threading.Event, outages: Outages, deviations: Deviations | None = None
) -> Rcs | None:
    """Given the configuration, return the client of RCS, None when there is none. It counts what differs in `deviations`."""
    rcs = config.rcs
    if rcs.base_uri is None:
        return None
    account = Account(
        RCS, root(rcs.base_uri), rcs.username, rcs.password, rcs.trusted_ca, config.htcc.rws_timeout
    )
    return Rcs(Session(account, stop, outages), config.htcc.contact_center_id, deviations)
