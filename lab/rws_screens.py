"""RWS: screen recordings [gir-api 4, 5]."""

from typing import Any

from lab.routes import Route
from lab.rws_calls import find_media, stream_clear, visible_recording
from lab.service import LabRequest, LabResponse, RequestRefused
from lab.site import LabSite

SCREENS_PATH = "/internal-api/contact-centers/{ccid}/screen-recordings"

# For a server that lists its latest recordings regardless of the requested ids.
UNRELATED_SCREENS = [{"id": f"another-{number}", "region": "r1", "mediaFiles": []} for number in range(3)]


class ScreenResources:
    """The resources in `/internal-api/contact-centers/{ccid}/screen-recordings`."""

    def __init__(self, site: LabSite) -> None:
        self._site = site

    def create_routes(self) -> tuple[Route, ...]:
        """Return the routes of this part of RWS."""
        content = SCREENS_PATH + "/{id}/content/{media_id}"
        return (
            Route("GET", SCREENS_PATH, self._serve_bulk),
            Route("POST", SCREENS_PATH, self._post_screen),
            Route("GET", SCREENS_PATH + "/{id}", self._serve_recording),
            Route("GET", content, self._serve_content),
            Route("DELETE", content, self._delete_media),
        )

    def _serve_bulk(self, request: LabRequest) -> LabResponse:
        switches = self._site.switches
        if not switches.bulk:
            code = {404: 6, 403: 5, 500: 4, 501: 4}.get(switches.bulk_refusal, 2)
            raise RequestRefused(switches.bulk_refusal, code, "No such collection")
        if switches.bulk_ids in ("nothing", "others"):
            return LabResponse.with_envelope({"recordings": UNRELATED_SCREENS if switches.bulk_ids == "others" else []})
        ids = [id for id in request.query_parameters.get("ids", "").split(",") if id]
        if not ids:
            raise RequestRefused(400, 1, "The parameter ids is missing")
        found = [
            visible_recording(self._site, recording) for id in dict.fromkeys(ids) if (recording := self._visible_screen(id))
        ]
        if switches.bulk_ids == "bare":
            found = [{**recording, "mediaFiles": []} for recording in found]
        partial = switches.partial_code and len(found) < len(set(ids))
        return LabResponse.with_envelope({"recordings": found}, code=7 if partial else 0)

    def _visible_screen(self, id: str) -> dict[str, Any] | None:
        recording = self._site.store.get_screen(id)
        return recording if recording and recording["region"] == self._site.region else None

    def _require_screen(self, id: str) -> dict[str, Any]:
        recording = self._visible_screen(id)
        if recording is None:
            raise RequestRefused(404, 6, "Screen recording not found")
        return recording

    def _serve_recording(self, request: LabRequest, id: str) -> LabResponse:
        return LabResponse.with_envelope({"recording": visible_recording(self._site, self._require_screen(id))})

    def _serve_content(self, request: LabRequest, id: str, media_id: str) -> LabResponse:
        return stream_clear(self._site, find_media(self._require_screen(id), media_id))

    def _post_screen(self, request: LabRequest) -> LabResponse:
        body = request.json_object()
        self._check_body(body)
        self._site.store.post_screen(body, self._site.switches.replacing_post)
        return LabResponse.with_envelope({"id": body["id"]})

    def _check_body(self, body: dict[str, Any]) -> None:
        if not isinstance(body.get("id"), str) or not body["id"]:
            raise RequestRefused(400, 10, "id is missing")
        if body.get("region") != self._site.region:
            raise RequestRefused(400, 10, "region is missing or not the region of this node")
        files = body.get("mediaFiles")
        if not isinstance(files, list) or not files:
            raise RequestRefused(400, 10, "mediaFiles is missing")
        for media in files:
            _check_media(media)

    def _delete_media(self, request: LabRequest, id: str, media_id: str) -> LabResponse:
        self._require_screen(id)
        media = self._site.store.delete_screen_media(id, media_id)
        if media is None:
            raise RequestRefused(404, 6, "Media not found")
        self._site.media.delete_file(media)
        return LabResponse.with_envelope({})


def _check_media(media: Any) -> None:
    """Raise Refusal (400/10) for a media file that the server could not keep; a place is posted as mediaDescriptor."""
    if not isinstance(media, dict) or not all(isinstance(media.get(key), str) for key in ("mediaId", "type")):
        raise RequestRefused(400, 10, "a media file needs mediaId and type")
    if "originalMediaDescriptor" in media and "mediaDescriptor" not in media:
        raise RequestRefused(400, 10, "the place of a posted media file is its mediaDescriptor")
