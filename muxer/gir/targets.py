"""Decides which muxed files a call needs, and which of them exist. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from muxer.config.schema import AdvancedOptions
from muxer.gir.labels import LABEL
from muxer.gir.masks import PausedSpan, PauseList, read_pauses
from muxer.gir.models import CallRecording, MediaFile, ScreenRecording
from muxer.gir.muxed_names import ENCRYPTED_SUFFIX, has_paused_spans, is_muxed_file, muxed_name


@dataclass(frozen=True)
class MuxTarget:
    """One muxed file to create: one audio file of a call and the screen files of one agent that overlap it.

    `superseded` are the muxed files that it replaces, `same_source_files` those with its sources and paused spans,
    `covering_files` those with its sources, or more, which count as the target.
    """

    recording_id: str
    region: str
    agent: str
    audio: MediaFile
    screens: tuple[MediaFile, ...]
    published: bool = False
    superseded: tuple[MediaFile, ...] = ()
    label_missing: bool = False
    same_source_files: tuple[MediaFile, ...] = ()
    paused: tuple[PausedSpan, ...] = ()
    covering_files: tuple[MediaFile, ...] = ()

    @property
    def source_ids(self) -> tuple[str, ...]:
        """The mediaIds of its sources: the audio, then the screens in time order."""
        return (self.audio.media_id, *(screen.media_id for screen in self.screens))

    @property
    def file_name(self) -> str:
        """The file name of the clear muxed file, see :func:`~muxer.gir.muxed_names.muxed_name`."""
        return muxed_name(self.recording_id, self.source_ids, self.paused)

    @property
    def next_free_name(self) -> str:
        """The first name that no muxed file of the same sources has, for a repeated muxing."""
        taken = frozenset[str]().union(*(one.known_names for one in self.same_source_files))
        stem, _, rest = self.file_name.rpartition("_")
        names = (self.file_name, *(f"{stem}-{number}_{rest}" for number in range(2, len(self.same_source_files) + 2)))
        return next(name for name in names if not {name, f"{name}{ENCRYPTED_SUFFIX}"} & taken)

    @property
    def needs_work(self) -> bool:
        """Whether it is not done yet."""
        return not self.published or bool(self.superseded) or self.label_missing

    @property
    def is_encrypted(self) -> bool:
        """Whether any source is encrypted."""
        return any(media.is_encrypted for media in (self.audio, *self.screens))


@dataclass(frozen=True)
class TargetSelection:
    """The targets of one call, and the problems in its metadata."""

    targets: tuple[MuxTarget, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class TargetOptions:
    """The options that decide what a call needs."""

    label: bool
    delete_superseded: bool
    blank_paused: bool = False

    @classmethod
    def from_config(cls, advanced: AdvancedOptions) -> TargetOptions:
        """Take them from the configuration."""
        return cls(advanced.mark_screen_recording_label, advanced.delete_superseded, advanced.blank_paused)

    def select_targets(
        self, call: CallRecording, screen: ScreenRecording | None, *, may_label: bool = True
    ) -> TargetSelection:
        """Return the targets of a call, see :func:`select_targets`. `may_label` is whether RWS accepts a label now."""
        return select_targets(call, screen, **(vars(self) | {"label": self.label and may_label}))


def select_targets(
    call: CallRecording,
    screen: ScreenRecording | None,
    *,
    delete_superseded: bool,
    label: bool,
    blank_paused: bool = False,
) -> TargetSelection:
    """Return the targets of a call recording and its screen recording (None: there is none), by three options."""
    if screen is None:
        return TargetSelection((), ())
    nameless = any(media.type.startswith("video/") and not media.media_id for media in screen.media)
    problems = ["a screen file has no usable mediaId"] if nameless else []
    if not screen.screen_files:
        return TargetSelection((), tuple(problems))
    problems += [
        f"{media.media_id} has no usable startTime" for media in (*call.audio, *screen.screen_files) if media.start is None
    ]
    if not call.audio:
        problems.append("the call recording has screen files but no audio file")
    problems += [
        f"{media.media_id} overlaps no audio file of the call by its times"
        for media in screen.screen_files
        if media.start is not None and call.audio and not any(media.overlaps_with(audio) for audio in call.audio)
    ]
    source_names = frozenset[str]().union(*(media.known_names for media in (*call.audio, *screen.screen_files)))
    label_missing = label and LABEL not in call.labels
    targets = []
    for audio in call.audio:
        pauses = read_pauses(audio) if blank_paused else PauseList()
        problems += pauses.problems
        for agent, screens in _screens_by_agent(audio, screen).items():
            region = call.region or screen.region or screens[0].region
            target = MuxTarget(call.id, region, agent, audio, screens, label_missing=label_missing, paused=pauses.spans)
            targets.append(_compare_with_existing(target, screen, source_names, delete_superseded))
    return TargetSelection(tuple(targets), tuple(problems))


def _screens_by_agent(audio: MediaFile, screen: ScreenRecording) -> dict[str, tuple[MediaFile, ...]]:
    """Return the screen files that overlap an audio file, by agent, in time order."""
    agents: dict[str, list[MediaFile]] = {}
    for media in screen.screen_files:
        if media.overlaps_with(audio):
            agents.setdefault(media.agent_name, []).append(media)
    return {agent: tuple(sorted(screens, key=_time_order)) for agent, screens in sorted(agents.items())}


def _time_order(media: MediaFile) -> tuple[float, str]:
    return (media.start.timestamp() if media.start else 0.0), media.media_id


def _compare_with_existing(
    target: MuxTarget, screen: ScreenRecording, source_names: frozenset[str], delete_superseded: bool
) -> MuxTarget:
    """Compare a target with the existing muxed files.

    One with all its sources, or more, and the same paused spans counts as the target. Others are superseded, except those
    with the name of a source, of an entry that stays, or of another recording: these are never deleted.
    """
    wanted = set(target.source_ids)
    sources_of = [(media, set(media.muxed_from or ())) for media in screen.muxed_files]
    fitting = [(media, sources) for media, sources in sources_of if _has_same_pauses(media, target)]
    covering = tuple(media for media, sources in fitting if sources >= wanted)
    same_sources = (media for media, sources in fitting if sources == wanted)
    same_source_files = tuple(media for media in same_sources if not media.known_names & source_names)
    replaced, remaining = [], set(source_names)
    for media, sources in sources_of:
        is_fewer = sources < wanted or (sources == wanted and not _has_same_pauses(media, target))
        if target.audio.media_id in sources and is_fewer:
            replaced.append(media)
        else:
            remaining |= media.known_names
    ours = (one for one in replaced if not one.known_names & remaining and is_muxed_file(one, target.recording_id))
    superseded = tuple(ours) if delete_superseded else ()
    return replace(
        target,
        published=bool(covering),
        superseded=superseded,
        same_source_files=same_source_files,
        covering_files=covering,
    )


def _has_same_pauses(media: MediaFile, target: MuxTarget) -> bool:
    return has_paused_spans(media.media_id, target.recording_id, media.muxed_from or (), target.paused)
