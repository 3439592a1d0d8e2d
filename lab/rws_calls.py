"""RWS: call recordings, their media and their labels [gir-api 3, 6]."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

from lab.paging import ResultPage, ScrollRegistry, offset_page
from lab.query import BadParameter, integer_parameter, recording_filter
from lab.routes import Route
from lab.service import LabRequest, LabResponse, RequestRefused
from lab.site import LabSite, read_chunks

CENTER_PATH = "/api/v2/ops/contact-centers/{ccid}"
RECORDINGS_PATH = f"{CENTER_PATH}/recordings"
LABELS_PATH_WITHOUT_OPS = "/api/v2/recordings/{id}/labels"
LABEL_DEFINITIONS_PATH = f"{CENTER_PATH}/recording-label-definitions"
FOREIGN_HOST = "http://rws-node-2.lab.invalid:8090"
DEFAULT_PAGE_SIZE = 100
SCREEN_RECORDING_LABEL = "screenRecording"


def stream_clear(site: LabSite, media: dict[str, Any] | None) -> LabResponse:
    """Return the stored file of unencrypted media. Raises RequestRefused (404/6) when there is none."""
    path = site.media.find_file(media) if media and not media.get("pkcs7") else None
    if media is None or path is None:
        raise RequestRefused(404, 6, "Media not found")
    return LabResponse(
        content_type=media.get("type", "application/octet-stream"), stream=read_chunks(path), length=path.stat().st_size
    )


def find_media(recording: dict[str, Any], media_id: str) -> dict[str, Any] | None:
    """Return the media file with this id in a recording, or None."""
    return next((media for media in recording.get("mediaFiles", []) if media["mediaId"] == media_id), None)


def visible_recording(site: LabSite, recording: dict[str, Any]) -> dict[str, Any]:
    """Return a recording as RWS shows it: by some switches without the envelopes of its sources, or with an unknown storage
    of its audio [gir-api 4, S; 9]."""
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


def page_response(content: dict[str, Any], link: str, form: str) -> LabResponse:
    """Return a page with the link to the next one, in one of the forms that a server may choose [gir-api 3]."""
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
    response = LabResponse.with_envelope({**content, **forms.get(form, {form: link})})
    if form == "header":
        response.headers["Link"] = f'<{link}>; rel="next"'
    return response


class CallResources:
    """The resources in `/api/v2/ops/contact-centers/{ccid}` for call recordings."""

    def __init__(self, site: LabSite) -> None:
        self._site = site
        self._scrolls = ScrollRegistry()

    def create_routes(self) -> tuple[Route, ...]:
        """Return the routes of this part of RWS."""
        return (
            Route("GET", RECORDINGS_PATH, self._serve_query),
            Route("GET", RECORDINGS_PATH + "/{id}", self._serve_recording),
            Route("GET", RECORDINGS_PATH + "/{id}/content/{media_id}", self._serve_content),
            Route("POST", RECORDINGS_PATH + "/{id}/labels", self._label_by_ops),
            Route("POST", LABELS_PATH_WITHOUT_OPS, self._label_without_ops),
            Route("POST", LABEL_DEFINITIONS_PATH, self._define_label),
        )

    def _serve_query(self, request: LabRequest) -> LabResponse:
        if not request.query_parameters:
            raise RequestRefused(400, 1, "At least one parameter is required")
        try:
            page = self._select_page(request)
        except BadParameter as error:
            raise RequestRefused(400, 2, str(error)) from error
        recordings = [
            visible_recording(self._site, recording) for id in page.ids if (recording := self._site.store.get_call(id))
        ]
        if page.next_query is None:
            return LabResponse.with_envelope({"recordings": recordings})
        host = FOREIGN_HOST if self._site.switches.foreign_links else self._site.rws_url
        link = f"{host}{urlsplit(request.target).path}?{page.next_query}"
        return page_response({"recordings": recordings}, link, self._site.switches.link_form)

    def _select_page(self, request: LabRequest) -> ResultPage:
        parameters, switches = request.query_parameters, self._site.switches
        limit = integer_parameter(parameters, "limit", DEFAULT_PAGE_SIZE, 1)
        limit = min(limit, switches.page_cap or limit)
        if "scrollId" in parameters:
            return self._scrolls.follow_scroll(parameters["scrollId"], switches)
        region, finds = self._site.region, recording_filter(parameters)
        found = self._site.store.find_calls(lambda call: call.get("region") == region and finds(call))
        if parameters.get("scanAndScroll", "").lower() == "true":
            if switches.empty_scans:
                return ResultPage([], None)
            return self._scrolls.begin_scroll(found, limit, request.target, switches)
        offset = integer_parameter(parameters, "offset", 0)
        if 0 < switches.pages_refused_from <= offset:
            raise RequestRefused(500, 4, "Result window is too large")
        return offset_page(found, parameters, offset, limit)

    def _require_call(self, id: str) -> dict[str, Any]:
        recording = self._site.store.get_call(id)
        if recording is None or recording.get("region") != self._site.region:
            raise RequestRefused(404, 6, "Recording not found")
        return recording

    def _serve_recording(self, request: LabRequest, id: str) -> LabResponse:
        return LabResponse.with_envelope({"recording": visible_recording(self._site, self._require_call(id))})

    def _serve_content(self, request: LabRequest, id: str, media_id: str) -> LabResponse:
        return stream_clear(self._site, find_media(self._require_call(id), media_id))

    def _label_by_ops(self, request: LabRequest, id: str) -> LabResponse:
        if status := self._site.switches.label_refusal:
            raise RequestRefused(status, {403: 5, 404: 6, 500: 4, 501: 4}.get(status, 2), "Not possible")
        return self._add_label(request, id)

    def _label_without_ops(self, request: LabRequest, id: str) -> LabResponse:
        if not self._site.switches.label_without_ops:
            raise RequestRefused(404, 6, "No such resource")
        return self._add_label(request, id)

    def _add_label(self, request: LabRequest, id: str) -> LabResponse:
        name = self._label_name(request)
        self._require_call(id)
        if not self._site.store.has_label_definition(name) and not (
            name == SCREEN_RECORDING_LABEL and self._site.switches.label_definition
        ):
            self._refuse_undefined(name)
        if not self._site.store.add_label(id, name):
            raise RequestRefused(409, 18, "The label is already there")
        return LabResponse.with_envelope({}, 201)

    def _refuse_undefined(self, name: str) -> None:
        if self._site.switches.label_missing_answer == 404:
            raise RequestRefused(404, 6, f"Recording label definition {name} not found")
        raise RequestRefused(400, 2, "The parameter name is invalid")

    def _define_label(self, request: LabRequest) -> LabResponse:
        name = self._label_name(request)
        built_in = name == SCREEN_RECORDING_LABEL and self._site.switches.label_definition
        if not self._site.store.define_label(name) or built_in:
            raise RequestRefused(409, 18, "The label definition is already there")
        return LabResponse.with_envelope({}, 201)

    def _label_name(self, request: LabRequest) -> str:
        if self._site.switches.label_forbidden:
            raise RequestRefused(403, 5, "No permission for labels")
        name = request.json_object().get("name")
        if not isinstance(name, str) or not name:
            raise RequestRefused(400, 1, "The parameter name is missing")
        return name
