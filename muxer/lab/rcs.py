"""The Recording Crypto Server: plays stored media in clear, read from the folder behind the storage [gir-api 8]."""

from typing import Any

from muxer.lab.errors import LabError
from muxer.lab.keys import open_envelope
from muxer.lab.routes import Route, dispatch
from muxer.lab.rws_calls import media_of, stream_clear
from muxer.lab.service import Answer, Refusal, Request
from muxer.lab.site import Site

VERSION = "/rcs/version"
CENTER = "/rcs/contact-centers/{ccid}"
VERSION_NUMBER = "8.5.095.16"


class Rcs:
    """The application behind the RCS port of the lab."""

    name = "rcs"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._routes = (
            Route("GET", VERSION, self._version),
        )
        self._first = (
            Route("GET", CENTER + "/user-recordings/{id}/play/{media_id}", self._play_call),
            Route("GET", CENTER + "/user-screen-recordings/{id}/play/{media_id}", self._play_screen),
        )
        self._second = (
            Route("GET", "/rcs/recordings/{id}/play/{media_id}", self._play_call),
            Route("GET", "/rcs/screen-recordings/{id}/content/{media_id}", self._play_screen),
        )

    def answer(self, request: Request) -> Answer:
        """Return the answer: version without login; 401, 403 without the decrypt permission, 404 [gir-api 8, OURS]."""
        try:
            if f"/{'/'.join(request.segments)}" != VERSION:
                self._admit(request)
            family = self._second if self._site.switches.rcs_second_paths else self._first
            return dispatch((*self._routes, *family), request, self._site.ccid)
        except Refusal as refusal:
            answer = refusal.answer()
            if answer.status == 401:
                answer.headers["WWW-Authenticate"] = 'Basic realm="RCS"'
            return answer

    def _admit(self, request: Request) -> None:
        if not self._site.rcs_account.opens(request.headers):
            raise Refusal(401, 20, "Not authenticated")
        if not self._site.rcs_permission:
            raise Refusal(403, 5, "No permission to decrypt media")

    def _version(self, request: Request) -> Answer:
        text = self._site.switches.rcs_version
        return Answer(200, text.encode(), "text/plain") if text else Answer.envelope({"version": VERSION_NUMBER})

    def _play_call(self, request: Request, id: str, media_id: str) -> Answer:
        return self._play(self._site.store.call(id), media_id)

    def _play_screen(self, request: Request, id: str, media_id: str) -> Answer:
        return self._play(self._site.store.screen(id), media_id)

    def _play(self, recording: dict[str, Any] | None, media_id: str) -> Answer:
        media = media_of(recording or {}, media_id)
        if media is None or not media.get("pkcs7"):
            return stream_clear(self._site, media)
        path = self._site.media.find(media)
        if path is None:
            raise Refusal(404, 6, "Media not found")
        try:
            opened = open_envelope(media["pkcs7"], self._site.recipients)
            return Answer(content_type=media["type"], stream=opened.clear(path), length=opened.clear_size(path))
        except LabError as error:
            raise Refusal(500, 4, f"The media cannot be decrypted: {error}") from error
