"""Find the function that serves a method and a path."""

from collections.abc import Callable
from dataclasses import dataclass

from lab.service import LabRequest, LabResponse, RequestRefused

RouteHandler = Callable[..., LabResponse]


@dataclass(frozen=True)
class Route:
    """A method, a path with `{names}`, and the function that receives the request and those segments by name."""

    method: str
    path: str
    handler: RouteHandler

    def match_path(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """Return the named segments, or None if the path does not match."""
        pattern = self.path.strip("/").split("/")
        if len(pattern) != len(segments):
            return None
        pairs = list(zip(pattern, segments, strict=True))
        if any(not part.startswith("{") and part != segment for part, segment in pairs):
            return None
        return {part.strip("{}"): segment for part, segment in pairs if part.startswith("{")}


def dispatch_request(routes: tuple[Route, ...], request: LabRequest, ccid: str) -> LabResponse:
    """Return the response of the first matching route. Raises RequestRefused without one (404/6, 405)."""
    matching = [(route, names) for route in routes if (names := route.match_path(request.path_segments)) is not None]
    if not matching:
        raise RequestRefused(404, 6, "No such resource")
    for route, names in matching:
        if route.method == request.method:
            if names.pop("ccid", ccid) != ccid:
                raise RequestRefused(404, 6, "Contact center not found")
            return route.handler(request, **names)
    raise RequestRefused(405, 2, "Method not allowed")
