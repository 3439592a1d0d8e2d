"""Which muxed files a call wants, and which of them exist already (behaviour, section 1, step 4). Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from muxer.gir.labels import LABEL
from muxer.gir.masks import PausedSpan, PauseList, read_pauses
from muxer.gir.models import CallRecording, MediaFile, ScreenRecording
from muxer.gir.muxed_names import ENCRYPTED_SUFFIX, has_paused_spans, is_muxed_file, muxed_name


@dataclass(frozen=True)
class MuxTarget:
    """One muxed file that is wanted: one audio file of a call and the screen files of one agent that overlap it.

    ``published``: it stands in the metadata already. ``superseded``: muxed files that it replaces. ``twins``: muxed files
    of exactly its sources and paused spans. ``label_missing``: the call recording still lacks its label. ``paused``: the
    spans in which its picture is blank.
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
        """The first name that no muxed file of the same sources bears: that under which it is made once more."""
        taken = frozenset[str]().union(*(one.known_names for one in self.same_source_files))
        stem, _, rest = self.file_name.rpartition("_")
        names = (self.file_name, *(f"{stem}-{number}_{rest}" for number in range(2, len(self.same_source_files) + 2)))
        return next(name for name in names if not {name, f"{name}{ENCRYPTED_SUFFIX}"} & taken)

    @property
    def needs_work(self) -> bool:
        """Whether anything is left to do for it."""
        return not self.published or bool(self.superseded) or self.label_missing

    @property
    def is_encrypted(self) -> bool:
        """Whether any source is encrypted."""
        return any(media.is_encrypted for media in (self.audio, *self.screens))


@dataclass(frozen=True)
class TargetSelection:
    """The targets of one call, and what in its metadata cannot be used."""

    targets: tuple[MuxTarget, ...]
    problems: tuple[str, ...]


def select_targets(
    call: CallRecording,
    screen: ScreenRecording | None,
    *,
    delete_superseded: bool,
    label: bool,
    blank_paused: bool = False,
) -> TargetSelection:
    """Given a call recording, its screen recording if there is one, and three options, return what is wanted of it."""
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
    kept = frozenset[str]().union(*(media.known_names for media in (*call.audio, *screen.screen_files)))
    label_missing = label and LABEL not in call.labels
    targets = []
    for audio in call.audio:
        pauses = read_pauses(audio) if blank_paused else PauseList()
        problems += pauses.problems
        for agent, screens in _screens_by_agent(audio, screen).items():
            region = call.region or screen.region or screens[0].region
            target = MuxTarget(call.id, region, agent, audio, screens, label_missing=label_missing, paused=pauses.spans)
            targets.append(_compare_with_existing(target, screen, kept, delete_superseded))
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
    target: MuxTarget, screen: ScreenRecording, kept: frozenset[str], delete_superseded: bool
) -> MuxTarget:
    """Compare a target with the muxed files that exist; ``kept`` are the names of sources.

    A muxed file that has all its sources, or more, and the same paused spans stands for it: metadata that shrink for a
    moment must not replace a fuller file. One with fewer of them, or the same and other paused spans, is superseded, unless
    it bears the name of a source or of another entry that stays, or none that this recording gives to the sources it lists:
    sources, files of other recordings and muxed files in use are never deleted, whatever metadata say that they are.
    """
    wanted = set(target.source_ids)
    made_of = [(media, set(media.muxed_from or ())) for media in screen.muxed_files]
    fitting = [(media, sources) for media, sources in made_of if _has_same_pauses(media, target)]
    published = any(sources >= wanted for _, sources in fitting)
    twins = tuple(media for media, sources in fitting if sources == wanted and not media.known_names & kept)
    replaced, staying = [], set(kept)
    for media, sources in made_of:
        is_fewer = sources < wanted or (sources == wanted and not _has_same_pauses(media, target))
        if target.audio.media_id in sources and is_fewer:
            replaced.append(media)
        else:
            staying |= media.known_names
    ours = (one for one in replaced if not one.known_names & staying and is_muxed_file(one, target.recording_id))
    superseded = tuple(ours) if delete_superseded else ()
    return replace(target, published=published, superseded=superseded, same_source_files=twins)


def _has_same_pauses(media: MediaFile, target: MuxTarget) -> bool:
    """Whether a muxed file was made with the paused spans of a target."""
    return has_paused_spans(media.media_id, target.recording_id, media.muxed_from or (), target.paused)
