"""RWS: call recordings, their media and their labels [gir-api 3, 6]."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

from muxer.lab.paging import Page, Scrolls, offset_page
from muxer.lab.query import BadParameter, finder, number
from muxer.lab.routes import Route
from muxer.lab.service import Answer, Refusal, Request
from muxer.lab.site import Site, chunks

CENTER = "/api/v2/ops/contact-centers/{ccid}"
RECORDINGS = f"{CENTER}/recordings"
LABELS_WITHOUT_OPS = "/api/v2/recordings/{id}/labels"
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


def shown(site: Site, recording: dict[str, Any]) -> dict[str, Any]:
    """Return a recording as RWS shows it: perhaps without the envelopes of its sources, or with an unknown storage of its
    audio [gir-api 4, S; 9]."""
    if site.switches.hidden_storage:
        for media in recording["mediaFiles"]:
            if media["type"].startswith("audio/"):
                media["originalMediaDescriptor"] = {"storage": "tape", "path": "x"}
    if site.switches.hidden_pkcs7 or site.switches.hidden_encryption:
        for media in recording["mediaFiles"]:
            if "muxed_mediaIds" not in media.get("parameters", {}):
                media.pop("pkcs7", None)
                if site.switches.hidden_encryption:
                    media.pop("certAlias", None)
    return recording


def linked(content: dict[str, Any], link: str, form: str) -> Answer:
    """Return a page with its link to the next one, in one of the forms that a server may choose [gir-api 3]."""
    scroll_id = parse_qs(urlsplit(link).query).get("scrollId", [""])[0]
    forms: dict[str, dict[str, Any]] = {
        "object": {"paging": {"next": {"uri": link}}},
        "unknown": {"cursor": {"following": link}},
        "scrollId": {"scrollId": scroll_id} if scroll_id else {},
        **{name: {name: {"next": link}} for name in ("paging", "pagination", "links")},
        "_links": {"_links": {"next": {"href": link}}},
        "header": {},
        "none": {},
    }
    answer = Answer.envelope({**content, **forms.get(form, {form: link})})
    if form == "header":
        answer.headers["Link"] = f'<{link}>; rel="next"'
    return answer


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
            Route("POST", RECORDINGS + "/{id}/labels", self._label_by_ops),
            Route("POST", LABELS_WITHOUT_OPS, self._label_without_ops),
            Route("POST", DEFINITIONS, self._define),
        )

    def _query(self, request: Request) -> Answer:
        if not request.parameters:
            raise Refusal(400, 1, "At least one parameter is required")
        try:
            page = self._page(request)
        except BadParameter as error:
            raise Refusal(400, 2, str(error)) from error
        recordings = [shown(self._site, recording) for id in page.ids if (recording := self._site.store.call(id))]
        if page.next_query is None:
            return Answer.envelope({"recordings": recordings})
        host = FOREIGN_HOST if self._site.switches.foreign_links else self._site.rws_url
        link = f"{host}{urlsplit(request.target).path}?{page.next_query}"
        return linked({"recordings": recordings}, link, self._site.switches.link_form)

    def _page(self, request: Request) -> Page:
        parameters, switches = request.parameters, self._site.switches
        limit = number(parameters, "limit", DEFAULT_LIMIT, 1)
        limit = min(limit, switches.page_cap or limit)
        if "scrollId" in parameters:
            return self._scrolls.follow(parameters["scrollId"], switches)
        region, finds = self._site.region, finder(parameters)
        found = self._site.store.find(lambda call: call.get("region") == region and finds(call))
        if parameters.get("scanAndScroll", "").lower() == "true":
            if switches.empty_scans:
                return Page([], None)
            return self._scrolls.begin(found, limit, request.target, switches)
        offset = number(parameters, "offset", 0)
        if 0 < switches.pages_refused_from <= offset:
            raise Refusal(500, 4, "Result window is too large")
        return offset_page(found, parameters, offset, limit)

    def _call(self, id: str) -> dict[str, Any]:
        recording = self._site.store.call(id)
        if recording is None or recording.get("region") != self._site.region:
            raise Refusal(404, 6, "Recording not found")
        return recording

    def _one(self, request: Request, id: str) -> Answer:
        return Answer.envelope({"recording": shown(self._site, self._call(id))})

    def _content(self, request: Request, id: str, media_id: str) -> Answer:
        return stream_clear(self._site, media_of(self._call(id), media_id))

    def _label_by_ops(self, request: Request, id: str) -> Answer:
        if status := self._site.switches.label_refusal:
            raise Refusal(status, {403: 5, 404: 6, 500: 4, 501: 4}.get(status, 2), "Not possible")
        return self._label(request, id)

    def _label_without_ops(self, request: Request, id: str) -> Answer:
        if not self._site.switches.label_without_ops:
            raise Refusal(404, 6, "No such resource")
        return self._label(request, id)

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
