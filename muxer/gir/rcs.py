"""The client of the Recording Crypto Server, which decrypts media (gir-api, section 8)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from muxer.errors import AccessDenied, Code, Forbidden, MediaNotFound, NotFound, RequestRejected, ServiceFailed
from muxer.gir.deviations import Deviation, DeviationLog
from muxer.gir.session import ServiceSession
from muxer.net.transfer import ReceivedLength

T = TypeVar("T")

# From this number on, files that RCS refuses by one family of paths, and does not find by the other, are not missing.
MIN_REFUSED_FILES = 5
_VERSION_PATTERN = re.compile(r"(?<![\d.])\d{1,9}(?:\.\d{1,9}){3}(?![\d.])")


class RcsClient:
    """The client of RCS. Safe to use from any thread. Of two families of paths, the one that worked last comes first."""

    def __init__(self, session: ServiceSession, contact_center_id: str, deviations: DeviationLog | None = None) -> None:
        self._session = session
        self._deviations = deviations or DeviationLog()
        self._contact_center = f"contact-centers/{quote(contact_center_id, safe='')}"
        self._second_works = self._has_played = False
        # Files that RCS does not find by one family of paths, and refuses by the other, before it has played any.
        self._refused: set[str] = set()

    def play_call(self, recording_id: str, media_id: str, path: Path, paths: Sequence[str] = ()) -> ReceivedLength:
        """Decrypt an audio file of a call recording to `path`; return its length."""
        targets = self._play_paths("user-recordings", recording_id, media_id, paths)
        return self._try_paths(media_id, targets, lambda target: self._session.download_media(target, path))

    def play_screen(self, recording_id: str, media_id: str, path: Path, paths: Sequence[str] = ()) -> ReceivedLength:
        """Decrypt a screen file to `path`; return its length."""
        targets = self._play_paths("user-screen-recordings", recording_id, media_id, paths)
        return self._try_paths(media_id, targets, lambda target: self._session.download_media(target, path))

    def check_call_media(self, recording_id: str, media_id: str, paths: Sequence[str] = ()) -> None:
        """Check that RCS would decrypt an audio file, without reading it. Raises the errors of :meth:`play_call`."""
        self._try_paths(
            media_id, self._play_paths("user-recordings", recording_id, media_id, paths), self._session.check_media
        )

    def check_screen_media(self, recording_id: str, media_id: str, paths: Sequence[str] = ()) -> None:
        """Like :meth:`check_call_media`, for a screen file."""
        self._try_paths(
            media_id, self._play_paths("user-screen-recordings", recording_id, media_id, paths), self._session.check_media
        )

    def fetch_version(self) -> str:
        """Return the version that RCS shows without a login, in JSON or in a text; empty when it shows none."""
        found = _VERSION_PATTERN.search(self._session.get_text("version"))
        return found[0] if found else ""

    def _try_paths(self, media_id: str, targets: Sequence[str], fetch: Callable[[str], T]) -> T:
        """Return what `fetch` returns for the first of the `targets` that RCS finds, else raise the first error."""
        with _translate_errors(media_id):
            missing: NotFound | None = None
            for target in targets:
                try:
                    found = fetch(target)
                except NotFound as error:
                    missing = missing or error
                    continue
                except (RequestRejected, Forbidden, ServiceFailed) as error:
                    if missing is None or (isinstance(error, Forbidden) and self._lacks_permission(media_id)):
                        raise
                    continue  # An RCS that does not know this family of paths: the file is not there yet.
                self._record_path_family(is_second=not target.startswith(self._contact_center))
                return found
            assert missing is not None
            raise missing

    def _lacks_permission(self, media_id: str) -> bool:
        """Return whether a refusal by one family of paths counts, although RCS does not find the file by the other one.

        Before it has played anything, it may know only one family. A single file may be missing; several show it.
        """
        if not self._has_played and len(self._refused) < MIN_REFUSED_FILES:
            self._refused.add(media_id)
        return not self._has_played and len(self._refused) >= MIN_REFUSED_FILES

    def _record_path_family(self, *, is_second: bool) -> None:
        if is_second and not self._second_works:
            self._deviations.record_deviation(Deviation.RCS_PATHS, "RCS plays media by its second family of paths only")
        self._second_works, self._has_played = is_second, True

    def _play_paths(self, kind: str, recording_id: str, media_id: str, paths: Sequence[str]) -> list[str]:
        """Return the paths by which RCS may play a file, the likeliest first (gir-api, section 8)."""
        recording, media = quote(recording_id, safe=""), quote(media_id, safe="")
        first = f"{self._contact_center}/{kind}/{recording}/play/{media}"
        verb = "play" if kind == "user-recordings" else "content"
        usual = f"{kind.removeprefix('user-')}/{recording}/{verb}/{media}"
        second = [*(one.removeprefix("rcs/") for one in paths), usual]
        return list(dict.fromkeys([*second, first] if self._second_works else [first, *second]))


@contextmanager
def _translate_errors(media_id: str) -> Iterator[None]:
    """Distinguish a missing file and a missing permission from other errors."""
    try:
        yield
    except NotFound as error:
        raise MediaNotFound(f"{media_id}: RCS does not find it: {error}") from error
    except Forbidden as error:
        what = f"the RCS user lacks the media decrypt permission: {error}"
        denied = AccessDenied(what, code=Code.NO_DECRYPT_PERMISSION)
        denied.service = error.service
        raise denied from error


def rcs_root(base_uri: str) -> str:
    """Return the root of the API for the option ``base_uri`` of RCS, which may contain ``/rcs`` or not."""
    return base_uri if base_uri.endswith("/rcs") else f"{base_uri}/rcs"
