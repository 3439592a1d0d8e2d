"""The link from one page of a query to the next one, in every form that an RWS may use (gir-api, section 3). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from requests.utils import parse_header_links

# The key under which the target of a `Link` header is added to a response.
LINK_HEADER = "Link header"
# Objects of a response in which a link may be; the response itself is the first one.
LINK_CONTAINERS = ("paging", "links", "_links", "pagination")
LINK_NAMES = ("next", "nextUri", "nextPage", "nextPageUri")
ADDRESS_KEYS = ("href", "uri", "url")
SCROLL_ID_KEYS = ("scrollId", "scroll_id", "_scroll_id")
SCAN_PARAMETER = "scanandscroll"
_MAX_KEYS = 30
# Values that some servers return instead of a link on the last page.
_NO_LINKS = ("", "null", "none", "false", "undefined", "#")
# Links with these prefixes are API paths, relative to the address of RWS and not to the query.
_API_PATHS = ("api/", "internal-api/")


def next_link(response: Mapping[str, Any], first_url: str) -> str | None:
    """Return the link to the next page in `response` (its `Link` header is under :data:`LINK_HEADER`), None without one.

    A scrollId without a link is added to the `first_url` of the query.
    """
    link = next(_find_links(response), None)
    if link is not None:
        return _absolute_link(link.strip(), first_url)
    values = (container.get(name) for container in _link_containers(response) for name in SCROLL_ID_KEYS)
    scroll = next(_usable_links(values), None)
    return None if scroll is None else with_parameters(first_url, scrollId=scroll)


def _absolute_link(link: str, first_url: str) -> str:
    try:
        is_relative = not (urlsplit(link).scheme or link.startswith(("/", *_API_PATHS)))
    except ValueError:  # the session reports it
        return link
    return urljoin(first_url, link) if is_relative else link


def header_link(value: str) -> str | None:
    """Return the target of the relation `next` in the `value` of a `Link` header (RFC 8288), or None when there is none."""
    for one in parse_header_links(value):
        if "next" in str(one.get("rel", "")).lower().split():
            return one["url"] or None
    return None


def describe_keys(response: Mapping[str, Any]) -> str:
    """Return the names of the keys of a response, also those within its paging objects, for a log message."""
    names = []
    for name, value in response.items():
        inner = ", ".join(map(str, value)) if name in LINK_CONTAINERS and isinstance(value, Mapping) else ""
        names.append(f"{name} {{{inner}}}" if inner else str(name))
    return ", ".join(names[:_MAX_KEYS]).encode(errors="backslashreplace").decode()[:500] or "none"


def with_parameters(url: str, **values: str | int) -> str:
    """Return a `url` with these parameters of its query replaced or added; the others are left as they are."""
    path, _, query = url.partition("?")
    kept = [pair for pair in query.split("&") if pair and _parameter_name(pair) not in {name.lower() for name in values}]
    return f"{path}?{'&'.join([*kept, urlencode(values)])}"


def query_parameter(url: str, name: str) -> str:
    """Return the value of the parameter `name` in the query of a `url`, empty when it has none."""
    pairs = parse_qsl(url.partition("?")[2], keep_blank_values=True)
    return next((value for key, value in pairs if key.lower() == name.lower()), "")


def is_scan_query(url: str) -> bool:
    """Return whether a query asks for scan and scroll."""
    return query_parameter(url, SCAN_PARAMETER).lower() == "true"


def without_scan(url: str) -> str:
    """Return the URL of a query without scan and scroll."""
    path, _, query = url.partition("?")
    return f"{path}?{'&'.join(pair for pair in query.split('&') if _parameter_name(pair) != SCAN_PARAMETER)}"


def _parameter_name(pair: str) -> str:
    return pair.partition("=")[0].lower()


def _link_containers(response: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the objects in which a link may be, paging objects first."""
    for name in LINK_CONTAINERS:
        value = response.get(name)
        if isinstance(value, Mapping):
            yield value
        elif isinstance(value, list):
            yield from ({"next": one} for one in value if isinstance(one, Mapping) and one.get("rel") == "next")
    yield response


def _find_links(response: Mapping[str, Any]) -> Iterator[str]:
    values = [container.get(name) for container in _link_containers(response) for name in LINK_NAMES]
    for value in (*values, response.get(LINK_HEADER)):
        yield from _usable_links([*map(value.get, ADDRESS_KEYS)] if isinstance(value, Mapping) else [value])


def _usable_links(values: Iterable[object]) -> Iterator[str]:
    return (value for value in values if isinstance(value, str) and value.strip().lower() not in _NO_LINKS)
