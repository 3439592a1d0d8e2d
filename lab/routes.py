"""From method and path to the function that answers."""

from collections.abc import Callable
from dataclasses import dataclass

from lab.service import LabRequest, LabResponse, RequestRefused

RouteHandler = Callable[..., LabResponse]


@dataclass(frozen=True)
class Route:
    """A method, a path with ``{names}``, and the function that gets the request and those segments by name."""

    method: str
    path: str
    handler: RouteHandler

    def match_path(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """Return the named segments, or None if the path is another one."""
        pattern = self.path.strip("/").split("/")
        if len(pattern) != len(segments):
            return None
        pairs = list(zip(pattern, segments, strict=True))
        if any(not part.startswith("{") and part != segment for part, segment in pairs):
            return None
        return {part.strip("{}"): segment for part, segment in pairs if part.startswith("{")}


def dispatch_request(routes: tuple[Route, ...], request: LabRequest, ccid: str) -> LabResponse:
    """Return the answer of the first route that fits. Raise Refusal without one (404/6, 405)."""
    found = [(route, names) for route in routes if (names := route.match_path(request.path_segments)) is not None]
    if not found:
        raise RequestRefused(404, 6, "No such resource")
    for route, names in found:
        if route.method == request.method:
            if names.pop("ccid", ccid) != ccid:
                raise RequestRefused(404, 6, "Contact center not found")
            return route.handler(request, **names)
    raise RequestRefused(405, 2, "Method not allowed")
