"""The client of the Recording Crypto Server, which streams encrypted media in clear (gir-api, section 8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from muxer.errors import AccessDenied, Code, Forbidden, MediaNotFound, NotFound
from muxer.gir.session import Session
from muxer.transfer import Received


class Rcs:
    """RCS as the muxer sees it. Safe to use from any thread."""

    def __init__(self, session: Session, contact_center_id: str) -> None:
        self._session = session
        self._contact_center = f"contact-centers/{quote(contact_center_id, safe='')}"

    def play_call(self, recording_id: str, media_id: str, path: Path) -> Received:
        """Given a call recording and its encrypted audio file, stream it in clear to ``path``; return its length."""
        return self._play("user-recordings", recording_id, media_id, path)

    def play_screen(self, recording_id: str, media_id: str, path: Path) -> Received:
        """Given a screen recording and its encrypted file, stream it in clear to ``path``; return its length."""
        return self._play("user-screen-recordings", recording_id, media_id, path)

    def reach_call(self, recording_id: str, media_id: str) -> None:
        """Given a call recording and its encrypted audio file, see whether it would be played, and fetch nothing of it.

        Raise the errors of :meth:`play_call`.
        """
        with _our_errors(media_id):
            self._session.reach(self._target("user-recordings", recording_id, media_id))

    def reach_screen(self, recording_id: str, media_id: str) -> None:
        """Like :meth:`reach_call`, for a screen recording and its encrypted file."""
        with _our_errors(media_id):
            self._session.reach(self._target("user-screen-recordings", recording_id, media_id))

    def version(self) -> str:
        """Return the version of RCS as it tells it, without a login; empty when it tells none."""
        return str(self._session.get("version").get("version") or "")

    def _play(self, kind: str, recording_id: str, media_id: str, path: Path) -> Received:
        with _our_errors(media_id):
            return self._session.download(self._target(kind, recording_id, media_id), path)

    def _target(self, kind: str, recording_id: str, media_id: str) -> str:
        recording, media = quote(recording_id, safe=""), quote(media_id, safe="")
        return f"{self._contact_center}/{kind}/{recording}/play/{media}"


@contextmanager
def _our_errors(media_id: str) -> Iterator[None]:
    """Tell a file that is not there, and a permission that is missing, from other errors."""
    try:
        yield
    except NotFound as error:
        raise MediaNotFound(f"{media_id}: RCS does not find it: {error}") from error
    except Forbidden as error:
        what = f"the RCS user lacks the media decrypt permission: {error}"
        denied = AccessDenied(what, code=Code.NO_DECRYPT_PERMISSION)
        denied.service = error.service
        raise denied from error


def root(base_uri: str) -> str:
    """Given the option ``base_uri`` of RCS, return the address below which its calls lie; ``/rcs`` may be in it or not."""
    return base_uri if base_uri.endswith("/rcs") else f"{base_uri}/rcs"
