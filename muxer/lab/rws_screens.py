"""RWS: screen recordings [gir-api 4, 5]."""

from typing import Any

from muxer.lab.routes import Route
from muxer.lab.rws_calls import media_of, shown, stream_clear
from muxer.lab.service import Answer, Refusal, Request
from muxer.lab.site import Site

SCREENS = "/internal-api/contact-centers/{ccid}/screen-recordings"

# What a server may show that lists its latest recordings whatever ids were asked for.
OTHERS = [{"id": f"another-{number}", "region": "r1", "mediaFiles": []} for number in range(3)]


class ScreenRecordings:
    """The resources below ``/internal-api/contact-centers/{ccid}/screen-recordings``."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> tuple[Route, ...]:
        """Return what this part of RWS answers."""
        content = SCREENS + "/{id}/content/{media_id}"
        return (
            Route("GET", SCREENS, self._bulk),
            Route("POST", SCREENS, self._post),
            Route("GET", SCREENS + "/{id}", self._one),
            Route("GET", content, self._content),
            Route("DELETE", content, self._delete),
        )

    def _bulk(self, request: Request) -> Answer:
        switches = self._site.switches
        if not switches.bulk:
            code = {404: 6, 403: 5, 500: 4, 501: 4}.get(switches.bulk_refusal, 2)
            raise Refusal(switches.bulk_refusal, code, "No such collection")
        if switches.bulk_ids in ("nothing", "others"):
            return Answer.envelope({"recordings": OTHERS if switches.bulk_ids == "others" else []})
        ids = [id for id in request.parameters.get("ids", "").split(",") if id]
        if not ids:
            raise Refusal(400, 1, "The parameter ids is missing")
        found = [shown(self._site, recording) for id in dict.fromkeys(ids) if (recording := self._visible(id))]
        if switches.bulk_ids == "bare":
            found = [{**recording, "mediaFiles": []} for recording in found]
        partial = switches.partial_code and len(found) < len(set(ids))
        return Answer.envelope({"recordings": found}, code=7 if partial else 0)

    def _visible(self, id: str) -> dict[str, Any] | None:
        recording = self._site.store.screen(id)
        return recording if recording and recording["region"] == self._site.region else None

    def _screen(self, id: str) -> dict[str, Any]:
        recording = self._visible(id)
        if recording is None:
            raise Refusal(404, 6, "Screen recording not found")
        return recording

    def _one(self, request: Request, id: str) -> Answer:
        return Answer.envelope({"recording": shown(self._site, self._screen(id))})

    def _content(self, request: Request, id: str, media_id: str) -> Answer:
        return stream_clear(self._site, media_of(self._screen(id), media_id))

    def _post(self, request: Request) -> Answer:
        body = request.json()
        self._check(body)
        self._site.store.post_screen(body, self._site.switches.replacing_post)
        return Answer.envelope({"id": body["id"]})

    def _check(self, body: dict[str, Any]) -> None:
        if not isinstance(body.get("id"), str) or not body["id"]:
            raise Refusal(400, 10, "id is missing")
        if body.get("region") != self._site.region:
            raise Refusal(400, 10, "region is missing or not the region of this node")
        files = body.get("mediaFiles")
        if not isinstance(files, list) or not files:
            raise Refusal(400, 10, "mediaFiles is missing")
        for media in files:
            _check_media(media)

    def _delete(self, request: Request, id: str, media_id: str) -> Answer:
        self._screen(id)
        media = self._site.store.delete_screen_media(id, media_id)
        if media is None:
            raise Refusal(404, 6, "Media not found")
        self._site.media.delete(media)
        return Answer.envelope({})


def _check_media(media: Any) -> None:
    """Raise Refusal (400/10) for a media file that the server could not keep; a place is posted as mediaDescriptor."""
    if not isinstance(media, dict) or not all(isinstance(media.get(key), str) for key in ("mediaId", "type")):
        raise Refusal(400, 10, "a media file needs mediaId and type")
    if "originalMediaDescriptor" in media and "mediaDescriptor" not in media:
        raise Refusal(400, 10, "the place of a posted media file is its mediaDescriptor")
