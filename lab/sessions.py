"""Sessions by cookie and their CSRF tokens [gir-api 1, D]."""

import secrets
import threading
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from lab.service import LabRequest

SESSION_COOKIE = "JSESSIONID"
CSRF_HEADER = "X-LAB-CSRF"
MAX_SESSIONS = 1000


@dataclass
class LabSession:
    """A session: its id, the token that writes must contain, and the number of writes it has served."""

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    writes: int = 0


class SessionRegistry:
    """The sessions of a node; beyond MAX_SESSIONS, the oldest ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, LabSession] = {}

    def session_headers(self, request: LabRequest, csrf: bool) -> dict[str, str]:
        """Return the headers of a GET response: a cookie for a new session, and with `csrf` the name and the token."""
        with self._lock:
            session = self._find_session(request)
            headers = (
                {}
                if session
                else {"Set-Cookie": f"{SESSION_COOKIE}={(session := self._create_session()).id}; Path=/; HttpOnly"}
            )
            if csrf and session:
                headers |= {"X-CSRF-HEADER": CSRF_HEADER, "X-CSRF-TOKEN": session.token}
            return headers

    def accepts_write(self, request: LabRequest, expires_after: int) -> bool:
        """Return whether a write has its session's token, which is replaced after `expires_after` writes (0: never)."""
        with self._lock:
            session = self._find_session(request)
            if session is None or not secrets.compare_digest(session.token, request.headers.get(CSRF_HEADER, "")):
                return False
            session.writes += 1
            if expires_after and session.writes % expires_after == 0:
                session.token = secrets.token_hex(16)
            return True

    def _find_session(self, request: LabRequest) -> LabSession | None:
        try:
            cookie = SimpleCookie(request.headers.get("Cookie", "")).get(SESSION_COOKIE)
        except CookieError:
            return None
        return self._sessions.get(cookie.value) if cookie else None

    def _create_session(self) -> LabSession:
        session = LabSession()
        self._sessions[session.id] = session
        if len(self._sessions) > MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return session
