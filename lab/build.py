"""Create recordings from plans: media in parallel, then all metadata."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab import metadata
from lab.cases import CallPlan, Case, ScreenPart
from lab.keys import encrypt_media
from lab.screens import make_screen
from lab.site import CALLS, SCREENS, LabSite
from lab.sounds import make_audio
from lab.tools import QUIET_OPTIONS, run_program


@dataclass(frozen=True)
class AddedScreen:
    """A screen file of a call: its plan, its absolute start, its mediaId."""

    part: ScreenPart
    start: datetime
    media_id: str


@dataclass(frozen=True)
class AddedCall:
    """A call in the lab: recording id, case, plan, absolute start, mediaId of the audio, screen files in time order."""

    id: str
    case: Case
    plan: CallPlan
    start: datetime
    audio_id: str
    screens: tuple[AddedScreen, ...]


@dataclass
class _Draft:
    """A call whose media are being created; `pkcs7` maps the mediaId of each encrypted file to its envelope."""

    call: AddedCall
    pkcs7: dict[str, str] = field(default_factory=dict)


def build_calls(
    site: LabSite, wanted: Sequence[tuple[Case, CallPlan, datetime, int]]
) -> tuple[list[AddedCall], list[tuple[str, dict[str, Any]]]]:
    """Create media and metadata for (case, plan, start, serial number) per call, and store them.

    Returns the calls, and the late screen media still to be added, as (recording id, media entry). Raises LabError if ffmpeg
    fails.
    """
    drafts = [_Draft(_name_media(*one)) for one in wanted]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done in [pool.submit(job) for draft in drafts for job in _media_jobs(site, draft)]:
            done.result()
    late = []
    for draft in drafts:
        late += _store_metadata(site, draft)
    return [draft.call for draft in drafts], late


def _name_media(case: Case, plan: CallPlan, start: datetime, serial: int) -> AddedCall:
    id = plan.recording_id(serial)
    suffix = ".bin" if plan.encrypted else ""
    screens = []
    for part in plan.screens:
        begin = start + timedelta(seconds=part.offset)
        screens.append(AddedScreen(part, begin, f"{part.agent.username}_{id}_{begin:%Y%m%d_%H%M%S}.mp4{suffix}"))
    return AddedCall(id, case, plan, start, f"{id}_{start:%Y%m%d_%H%M%S}.mp3{suffix}", tuple(screens))


def _media_jobs(site: LabSite, draft: _Draft) -> list[Callable[[], None]]:
    call = draft.call

    def create_audio() -> None:
        _create_media(site, draft, CALLS, call.audio_id, lambda path: make_audio(path, call.start, call.plan.seconds))

    def screen_job(one: AddedScreen) -> Callable[[], None]:
        agent, part = one.part.agent, one.part

        def create_screen(path: Path) -> None:
            make_screen(path, one.start, part.seconds, agent=agent.username, agent_number=agent.number)

        return lambda: _create_media(site, draft, SCREENS, one.media_id, create_screen)

    return [create_audio, *(screen_job(one) for one in call.screens)]


def _create_media(site: LabSite, draft: _Draft, collection: str, media_id: str, create: Callable[[Path], None]) -> None:
    """Create a media file and put it into the storage, encrypted if the plan requires it."""
    stored = site.media.folder / collection / media_id
    with TemporaryDirectory() as folder:
        clear = Path(folder) / media_id.removesuffix(".bin")
        create(clear)
        if draft.call.plan.encrypted:
            draft.pkcs7[media_id] = encrypt_media(clear, stored, site.recipients)
        else:
            stored.write_bytes(clear.read_bytes())


def _store_metadata(site: LabSite, draft: _Draft) -> list[tuple[str, dict[str, Any]]]:
    """Store the metadata of a call and its screens after their files. Returns the late screen media instead."""
    call, screens = draft.call, _screen_entries(site, draft)
    muxed = [_create_muxed(site, call)] if call.plan.muxed else []
    pkcs7, stored = draft.pkcs7.get(call.audio_id), site.media.folder / CALLS / call.audio_id
    audio = metadata.call_media(site, call.plan, call.id, call.start, stored, pkcs7)
    site.media.move_to_storage(CALLS, audio["mediaId"])
    for media in [*screens.values(), *muxed]:
        site.media.move_to_storage(SCREENS, media["mediaId"])
    late = [one.media_id for one in call.screens if one.part.late]
    for media in [*(one for id, one in screens.items() if id not in late), *muxed]:
        site.store.add_screen_media(call.id, site.region, media)
    site.store.add_call(metadata.call_recording(site, call.plan, call.id, call.start, audio))
    return [(call.id, screens[id]) for id in late]


def _screen_entries(site: LabSite, draft: _Draft) -> dict[str, dict[str, Any]]:
    """Return the media entries of the screen files of a call, by their ids."""
    call, folder = draft.call, site.media.folder / SCREENS
    return {
        one.media_id: metadata.screen_media(
            site, one.part, call.id, one.start, folder / one.media_id, draft.pkcs7.get(one.media_id)
        )
        for one in call.screens
    }


def _create_muxed(site: LabSite, call: AddedCall) -> dict[str, Any]:
    """Create the muxed file of a call with one screen of the same length, encrypted if the site encrypts.

    Returns its media entry.
    """
    root = site.media.folder
    screen, audio = root / SCREENS / call.screens[0].media_id, root / CALLS / call.audio_id
    stored, pkcs7 = root / SCREENS / f"{call.id}_lab_muxed.mp4", None
    inputs = ["-i", str(screen), "-i", str(audio)]
    run_program(
        ["ffmpeg", *QUIET_OPTIONS, "-y", *inputs, "-c", "copy", "-strict", "-1", "-movflags", "+faststart", str(stored)]
    )
    if site.switches.encryption_group == "certificates":
        clear, stored = stored, stored.with_name(f"{stored.name}.bin")
        pkcs7 = encrypt_media(clear, stored, site.recipients)
        clear.unlink()
    sources = [call.audio_id, call.screens[0].media_id]
    return metadata.muxed_media(site, call.plan, call.id, call.start, stored, sources, pkcs7)
