"""RWS: call recordings, their media and their labels [gir-api 3, 6]."""

from typing import Any
from urllib.parse import urlsplit

from muxer.lab.paging import Page, Scrolls, offset_page
from muxer.lab.query import BadParameter, finder, number
from muxer.lab.routes import Route
from muxer.lab.service import Answer, Refusal, Request
from muxer.lab.site import Site, chunks

CENTER = "/api/v2/ops/contact-centers/{ccid}"
RECORDINGS = f"{CENTER}/recordings"
DEFINITIONS = f"{CENTER}/recording-label-definitions"
FOREIGN_HOST = "http://rws-node-2.lab.invalid:8090"
DEFAULT_LIMIT = 100
LABEL = "screenRecording"


def stream_clear(site: Site, media: dict[str, Any] | None) -> Answer:
    """Return the stored file of clear media. Raise Refusal (404/6): no such media, encrypted, or its file is gone."""
    path = site.media.find(media) if media and not media.get("pkcs7") else None
    if media is None or path is None:
        raise Refusal(404, 6, "Media not found")
    return Answer(
        content_type=media.get("type", "application/octet-stream"), stream=chunks(path), length=path.stat().st_size
    )


def media_of(recording: dict[str, Any], media_id: str) -> dict[str, Any] | None:
    """Return the media file of this id in a recording, or None."""
    return next((media for media in recording.get("mediaFiles", []) if media["mediaId"] == media_id), None)


class CallRecordings:
    """The resources below ``/api/v2/ops/contact-centers/{ccid}`` that concern call recordings."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._scrolls = Scrolls()

    def routes(self) -> tuple[Route, ...]:
        """Return what this part of RWS answers."""
        return (
            Route("GET", RECORDINGS, self._query),
            Route("GET", RECORDINGS + "/{id}", self._one),
            Route("GET", RECORDINGS + "/{id}/content/{media_id}", self._content),
            Route("POST", RECORDINGS + "/{id}/labels", self._label),
            Route("POST", DEFINITIONS, self._define),
        )

    def _query(self, request: Request) -> Answer:
        if not request.parameters:
            raise Refusal(400, 1, "At least one parameter is required")
        try:
            page = self._page(request)
        except BadParameter as error:
            raise Refusal(400, 2, str(error)) from error
        recordings = [recording for id in page.ids if (recording := self._site.store.call(id))]
        return Answer.envelope({"recordings": recordings, **self._link(request, page)})

    def _page(self, request: Request) -> Page:
        parameters, switches = request.parameters, self._site.switches
        limit = number(parameters, "limit", DEFAULT_LIMIT, 1)
        if "scrollId" in parameters:
            return self._scrolls.follow(parameters["scrollId"], switches)
        region, finds = self._site.region, finder(parameters)
        found = self._site.store.find(lambda call: call.get("region") == region and finds(call))
        if parameters.get("scanAndScroll", "").lower() == "true":
            return self._scrolls.begin(found, limit, request.target, switches)
        return offset_page(found, parameters, number(parameters, "offset", 0), limit)

    def _link(self, request: Request, page: Page) -> dict[str, Any]:
        if page.next_query is None:
            return {}
        host = FOREIGN_HOST if self._site.switches.foreign_links else self._site.rws_url
        link = f"{host}{urlsplit(request.target).path}?{page.next_query}"
        form = self._site.switches.link_form
        return {"paging": {"next": link}} if form == "paging" else {form: link}

    def _call(self, id: str) -> dict[str, Any]:
        recording = self._site.store.call(id)
        if recording is None or recording.get("region") != self._site.region:
            raise Refusal(404, 6, "Recording not found")
        return recording

    def _one(self, request: Request, id: str) -> Answer:
        return Answer.envelope({"recording": self._call(id)})

    def _content(self, request: Request, id: str, media_id: str) -> Answer:
        return stream_clear(self._site, media_of(self._call(id), media_id))

    def _label(self, request: Request, id: str) -> Answer:
        name = self._label_name(request)
        self._call(id)
        if not self._site.store.label_defined(name) and not (name == LABEL and self._site.switches.label_definition):
            self._refuse_undefined(name)
        if not self._site.store.add_label(id, name):
            raise Refusal(409, 18, "The label is already there")
        return Answer.envelope({}, 201)

    def _refuse_undefined(self, name: str) -> None:
        if self._site.switches.label_missing_answer == 404:
            raise Refusal(404, 6, f"Recording label definition {name} not found")
        raise Refusal(400, 2, "The parameter name is invalid")

    def _define(self, request: Request) -> Answer:
        name = self._label_name(request)
        built_in = name == LABEL and self._site.switches.label_definition
        if not self._site.store.define_label(name) or built_in:
            raise Refusal(409, 18, "The label definition is already there")
        return Answer.envelope({}, 201)

    def _label_name(self, request: Request) -> str:
        if self._site.switches.label_forbidden:
            raise Refusal(403, 5, "No permission for labels")
        name = request.json().get("name")
        if not isinstance(name, str) or not name:
            raise Refusal(400, 1, "The parameter name is missing")
        return name
