"""The client of the Recording Crypto Server, which streams encrypted media in clear (gir-api, section 8)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from muxer.errors import AccessDenied, Code, Forbidden, MediaNotFound, NotFound
from muxer.gir.session import Session


class Rcs:
    """RCS as the muxer sees it. Safe to use from any thread."""

    def __init__(self, session: Session, contact_center_id: str) -> None:
        self._session = session
        self._contact_center = f"contact-centers/{quote(contact_center_id, safe='')}"

    def play_call(self, recording_id: str, media_id: str, path: Path) -> int:
        """Given a call recording and its encrypted audio file, stream it in clear to ``path``; return its length."""
        return self._play("user-recordings", recording_id, media_id, path)

    def play_screen(self, recording_id: str, media_id: str, path: Path) -> int:
        """Given a screen recording and its encrypted file, stream it in clear to ``path``; return its length."""
        return self._play("user-screen-recordings", recording_id, media_id, path)

    def _play(self, kind: str, recording_id: str, media_id: str, path: Path) -> int:
        recording, media = quote(recording_id, safe=""), quote(media_id, safe="")
        try:
            return self._session.download(f"{self._contact_center}/{kind}/{recording}/play/{media}", path)
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
