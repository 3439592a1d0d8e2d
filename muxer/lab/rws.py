"""Interaction Recording Web Services: access, version, settings, and the way to the recordings [gir-api 1, 2, 7]."""

from muxer.lab.routes import Route, dispatch
from muxer.lab.rws_calls import CallRecordings
from muxer.lab.rws_screens import ScreenRecordings
from muxer.lab.service import Answer, Refusal, Request
from muxer.lab.sessions import Sessions
from muxer.lab.site import Site

VERSION = "/api/v2/diagnostics/version"
SETTINGS = "/api/v2/ops/contact-centers/{ccid}/settings/screen-recording-encryption"


class Rws:
    """The application behind the RWS port of the lab."""

    name = "rws"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._sessions = Sessions()
        self._routes = (
            Route("GET", VERSION, self._version),
            Route("GET", SETTINGS, self._settings),
            *CallRecordings(site).routes(),
            *ScreenRecordings(site).routes(),
        )

    def answer(self, request: Request) -> Answer:
        """Return the answer; every GET answer carries session and CSRF headers, failures too [gir-api 1, D]."""
        switches = self._site.switches
        if request.method == "GET":
            answer = self._act(request)
            answer.headers |= self._sessions.headers(request, switches.csrf)
            return answer
        if switches.csrf and not self._sessions.admits(request, switches.csrf_expires_after):
            return Refusal(403, 3, "Missing or invalid Csrf token").answer()
        answer = self._act(request)
        if switches.text_answers and answer.status < 300:
            answer.body = b"{status:0}" if request.method == "POST" else b"200 OK!"
            answer.content_type = "text/html"
        return answer

    def _act(self, request: Request) -> Answer:
        try:
            if f"/{'/'.join(request.segments)}" != VERSION and not self._site.rws_account.opens(request.headers):
                raise Refusal(401, 20, "Not authenticated")
            return dispatch(self._routes, request, self._site.ccid)
        except Refusal as refusal:
            return self._refused(refusal)

    def _refused(self, refusal: Refusal) -> Answer:
        answer = refusal.answer()
        if self._site.switches.error_in_envelope:
            answer.status = 200
        elif answer.status == 401:
            answer.headers["WWW-Authenticate"] = 'Basic realm="RWS"'
        return answer

    def _version(self, request: Request) -> Answer:
        version = self._site.switches.version
        if not version:
            return Answer(200, b"<html><body>It works!</body></html>", "text/html")
        return Answer.envelope({"version": version})

    def _settings(self, request: Request) -> Answer:
        group = self._site.switches.encryption_group
        if group == "missing":
            raise Refusal(404, 6, "Settings group screen-recording-encryption not found")
        settings = []
        for number, recipient in enumerate(self._site.recipients if group == "certificates" else (), 1):
            settings.append({"name": f"certificatealias-{number}", "value": recipient.alias})
            settings.append({"name": f"certificate-{number}", "value": recipient.pem})
        return Answer.envelope({"key": "name", "settings": settings})
