"""The deviations that docs/gir-api.md allows a server; each is a switch of the lab."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Switches:
    """How the servers of the lab behave; the defaults are the hardest ones for a client that gir-api allows.

    Frozen, because running requests read it; change it by `lab.switches = replace(lab.switches, ...)`.

    csrf: every GET response has X-CSRF-HEADER and X-CSRF-TOKEN; a write without them is refused [gir-api 1, D].
    csrf_expires_after: above 0, the token is replaced after this number of writes [D: refresh after a 403].
    replacing_post: a POST replaces the mediaFiles of a screen recording, else merges by mediaId [gir-api 5, OURS].
    bulk: the collection of screen recordings can be read with `ids=` [gir-api 4, OURS].
    bulk_refusal: the HTTP status of that collection without bulk: 400, 403, 404, 405, 500 or 501.
    bulk_ids: a bulk response has those `asked` for, `nothing`, `others`, or those without media (`bare`) [gir-api 4].
    partial_code: a bulk response has statusCode 7 when an id is unknown, else 0.
    scroll_empty_first_page: the first page of a scan is empty and has a next link [gir-api 3].
    scroll_repeats_ids: later pages of a scan repeat an id of an earlier one [gir-api 3].
    scroll_expires_once: the first scroll link of a query that is followed returns 404/6, once per query text [gir-api 3].
    foreign_links: paging links contain an unreachable host [gir-api 1].
    link_form: the form of the link: a key, `object`, `header`, `scrollId`, `unknown` or `none` [gir-api 3].
    page_cap: above 0, a page has at most this number of recordings, regardless of `limit` [gir-api 3].
    pages_refused_from: above 0, pages from this offset on return 500, as Elasticsearch does at 10,000 [gir-api 3, S].
    empty_scans: a query with scanAndScroll returns one empty page without a link [gir-api 3].
    label_definition: the definition of the label screenRecording exists from the start [gir-api 6].
    label_missing_answer: the response without a definition: 404 (its message names it) or 400.
    label_forbidden: labels return 403/5.
    label_refusal: above 0, the label path below ops returns this HTTP status with a general text [gir-api 6, OURS].
    label_without_ops: labels can be set by the path without ops [gir-api 6, D].
    text_answers: writes return a text, `{status:0}` or `200 OK!` [gir-api 1, S].
    rcs_version: the text at /rcs/version; empty for JSON [gir-api 8].
    rcs_second_paths: RCS plays media only by its second family of paths [gir-api 8, S].
    hidden_storage: the descriptors of call media contain an unknown storage [gir-api 9].
    hidden_pkcs7: encrypted media of the recordings have no pkcs7 [gir-api 4, S].
    hidden_encryption: encrypted media of the recordings have no pkcs7 and certAlias [gir-api 4].
    encryption_group: the settings of gir-api 7: `certificates`, `empty`, or `missing` (404).
    version: the RWS version; empty makes the response unreadable.
    error_in_envelope: failures have HTTP 200 and only statusCode shows them [gir-api 1, D].
    """

    csrf: bool = True
    csrf_expires_after: int = 0
    replacing_post: bool = False
    bulk: bool = True
    bulk_refusal: int = 404
    bulk_ids: str = "asked"
    partial_code: bool = True
    scroll_empty_first_page: bool = True
    scroll_repeats_ids: bool = True
    scroll_expires_once: bool = False
    foreign_links: bool = True
    link_form: str = "paging"
    page_cap: int = 0
    pages_refused_from: int = 0
    empty_scans: bool = False
    label_definition: bool = True
    label_missing_answer: int = 404
    label_forbidden: bool = False
    label_refusal: int = 0
    label_without_ops: bool = False
    text_answers: bool = False
    rcs_version: str = ""
    rcs_second_paths: bool = False
    hidden_storage: bool = False
    hidden_pkcs7: bool = False
    hidden_encryption: bool = False
    encryption_group: str = "certificates"
    version: str = "8.5.205.40"
    error_in_envelope: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a value that no server may have."""
        for name, allowed in ALLOWED_VALUES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be one of {', '.join(map(str, allowed))}")


ALLOWED_VALUES: dict[str, tuple[int | str, ...]] = {
    "bulk_refusal": (400, 403, 404, 405, 500, 501),
    "bulk_ids": ("asked", "nothing", "others", "bare"),
    "link_form": (
        *("paging", "nextUri", "next", "nextPage", "nextPageUri", "links", "_links", "pagination"),
        *("object", "header", "scrollId", "unknown", "none"),
    ),
    "label_missing_answer": (404, 400),
    "label_refusal": (0, 400, 403, 404, 405, 422, 500, 501),
    "encryption_group": ("certificates", "empty", "missing"),
}

DEFAULT_SWITCHES = Switches()
