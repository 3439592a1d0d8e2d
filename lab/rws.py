"""Interaction Recording Web Services: access, version, settings, and the routes to recordings [gir-api 1, 2, 7]."""

from lab.routes import Route, dispatch_request
from lab.rws_calls import CallResources
from lab.rws_screens import ScreenResources
from lab.service import LabRequest, LabResponse, RequestRefused
from lab.sessions import SessionRegistry
from lab.site import LabSite

VERSION_PATH = "/api/v2/diagnostics/version"
SETTINGS_PATH = "/api/v2/ops/contact-centers/{ccid}/settings/screen-recording-encryption"


class RwsApplication:
    """The application behind the RWS port of the lab."""

    name = "rws"

    def __init__(self, site: LabSite) -> None:
        self._site = site
        self._sessions = SessionRegistry()
        self._routes = (
            Route("GET", VERSION_PATH, self._serve_version),
            Route("GET", SETTINGS_PATH, self._serve_settings),
            *CallResources(site).create_routes(),
            *ScreenResources(site).create_routes(),
        )

    def handle_request(self, request: LabRequest) -> LabResponse:
        """Return the response; that of every GET has session and CSRF headers, also after a failure [gir-api 1, D]."""
        switches = self._site.switches
        if request.method == "GET":
            response = self._dispatch_request(request)
            response.headers |= self._sessions.session_headers(request, switches.csrf)
            return response
        if switches.csrf and not self._sessions.accepts_write(request, switches.csrf_expires_after):
            return RequestRefused(403, 3, "Missing or invalid Csrf token").to_response()
        response = self._dispatch_request(request)
        if switches.text_answers and response.status < 300:
            response.body = b"{status:0}" if request.method == "POST" else b"200 OK!"
            response.content_type = "text/html"
        return response

    def _dispatch_request(self, request: LabRequest) -> LabResponse:
        try:
            if f"/{'/'.join(request.path_segments)}" != VERSION_PATH and not self._site.rws_account.accepts_headers(
                request.headers
            ):
                raise RequestRefused(401, 20, "Not authenticated")
            return dispatch_request(self._routes, request, self._site.ccid)
        except RequestRefused as refusal:
            return self._refusal_response(refusal)

    def _refusal_response(self, refusal: RequestRefused) -> LabResponse:
        response = refusal.to_response()
        if self._site.switches.error_in_envelope:
            response.status = 200
        elif response.status == 401:
            response.headers["WWW-Authenticate"] = 'Basic realm="RWS"'
        return response

    def _serve_version(self, request: LabRequest) -> LabResponse:
        version = self._site.switches.version
        if not version:
            return LabResponse(200, b"<html><body>It works!</body></html>", "text/html")
        return LabResponse.with_envelope({"version": version})

    def _serve_settings(self, request: LabRequest) -> LabResponse:
        group = self._site.switches.encryption_group
        if group == "missing":
            raise RequestRefused(404, 6, "Settings group screen-recording-encryption not found")
        settings = []
        for number, recipient in enumerate(self._site.recipients if group == "certificates" else (), 1):
            settings.append({"name": f"certificatealias-{number}", "value": recipient.alias})
            settings.append({"name": f"certificate-{number}", "value": recipient.pem})
        return LabResponse.with_envelope({"key": "name", "settings": settings})
