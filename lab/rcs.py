"""The Recording Crypto Server: plays stored media decrypted, read from the folder of the storage [gir-api 8]."""

from typing import Any

from lab.errors import LabError
from lab.keys import open_envelope
from lab.routes import Route, dispatch_request
from lab.rws_calls import find_media, stream_clear
from lab.service import LabRequest, LabResponse, RequestRefused
from lab.site import LabSite

VERSION_PATH = "/rcs/version"
CENTER_PATH = "/rcs/contact-centers/{ccid}"
VERSION_NUMBER = "8.5.095.16"


class RcsApplication:
    """The application behind the RCS port of the lab."""

    name = "rcs"

    def __init__(self, site: LabSite) -> None:
        self._site = site
        self._routes = (Route("GET", VERSION_PATH, self._serve_version),)
        self._first = (
            Route("GET", CENTER_PATH + "/user-recordings/{id}/play/{media_id}", self._serve_call),
            Route("GET", CENTER_PATH + "/user-screen-recordings/{id}/play/{media_id}", self._serve_screen),
        )
        self._second = (
            Route("GET", "/rcs/recordings/{id}/play/{media_id}", self._serve_call),
            Route("GET", "/rcs/screen-recordings/{id}/content/{media_id}", self._serve_screen),
        )

    def handle_request(self, request: LabRequest) -> LabResponse:
        """Return the response: version without credentials; 401, 403 without permission, 404 [gir-api 8, OURS]."""
        try:
            if f"/{'/'.join(request.path_segments)}" != VERSION_PATH:
                self._check_account(request)
            family = self._second if self._site.switches.rcs_second_paths else self._first
            return dispatch_request((*self._routes, *family), request, self._site.ccid)
        except RequestRefused as refusal:
            response = refusal.to_response()
            if response.status == 401:
                response.headers["WWW-Authenticate"] = 'Basic realm="RCS"'
            return response

    def _check_account(self, request: LabRequest) -> None:
        if not self._site.rcs_account.accepts_headers(request.headers):
            raise RequestRefused(401, 20, "Not authenticated")
        if not self._site.rcs_permission:
            raise RequestRefused(403, 5, "No permission to decrypt media")

    def _serve_version(self, request: LabRequest) -> LabResponse:
        text = self._site.switches.rcs_version
        return (
            LabResponse(200, text.encode(), "text/plain") if text else LabResponse.with_envelope({"version": VERSION_NUMBER})
        )

    def _serve_call(self, request: LabRequest, id: str, media_id: str) -> LabResponse:
        return self._serve_media(self._site.store.get_call(id), media_id)

    def _serve_screen(self, request: LabRequest, id: str, media_id: str) -> LabResponse:
        return self._serve_media(self._site.store.get_screen(id), media_id)

    def _serve_media(self, recording: dict[str, Any] | None, media_id: str) -> LabResponse:
        media = find_media(recording or {}, media_id)
        if media is None or not media.get("pkcs7"):
            return stream_clear(self._site, media)
        path = self._site.media.find_file(media)
        if path is None:
            raise RequestRefused(404, 6, "Media not found")
        try:
            opened = open_envelope(media["pkcs7"], (*self._site.recipients, *self._site.former_recipients))
            return LabResponse(
                content_type=media["type"], stream=opened.decrypt_chunks(path), length=opened.clear_size(path)
            )
        except LabError as error:
            raise RequestRefused(500, 4, f"The media cannot be decrypted: {error}") from error
