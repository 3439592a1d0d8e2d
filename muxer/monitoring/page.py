"""The status page and the page of one recording: HTML that needs nothing else, no script, no other file, no other server."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from muxer.journal import ASIDE
from muxer.monitoring import drawing, fleet_rows, rows, timelines, words
from muxer.monitoring.day import day
from muxer.monitoring.verdict import verdict
from muxer.monitoring.view import View

REFRESH_SECONDS = 20
TEMPLATES = Path(__file__).with_name("templates")
STYLE = (TEMPLATES / "style.css").read_text(encoding="utf-8")
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
# What the pages may load: their own style sheet, known by its digest, and the icon, which is part of them.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render(view: View, refresh: bool = True) -> str:
    """Given a view, return the status page; ``refresh`` = it loads itself again by and by."""
    now = view.at
    running = view.running[: fleet_rows.SHOWN]
    failures = tuple(map(rows.failure, view.failures))
    return _template("page.html").render(
        view=view,
        refresh=REFRESH_SECONDS if refresh else 0,
        verdict=verdict(view),
        services=tuple(map(rows.health, view.services)),
        running=tuple(rows.work(one, now, worker) for worker, one in running),
        fleet=fleet_rows.fleet(view.fleet) if view.fleet else None,
        failures=sorted(failures, key=lambda one: one.state != ASIDE),
        recent=tuple(map(rows.finished, view.recent)),
        day=day(view),
    )


def render_recording(view: View, name: str) -> str | None:
    """Given a view and the file name of a target that is done, return the page of its timeline; None when the view has none
    of it."""
    row = next((one for one in view.recent if one.name == name), None)
    timeline = timelines.read(row.facts.get("timeline")) if row else None
    if row is None or timeline is None:
        return None
    return _template("recording.html").render(
        view=view,
        refresh=0,
        verdict=verdict(view),
        recording=rows.finished(row),
        timeline=timeline,
        summary=timelines.summary(timeline),
        picture=Markup(drawing.draw(timeline, "timeline")),
        screens=[(one, timelines.screen_words(one, timeline)) for one in timeline.screens],
        overlaps=[timelines.overlap_words(*one) for one in timeline.overlaps],
        parts=timelines.merged(timeline.parts),
    )


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"style": Markup(STYLE), "kinds": drawing.WORDS, "quote": quote}
    made.filters |= {
        name: getattr(words, name) for name in ("clock", "moment", "machine", "span", "ago", "plain", "careful")
    }
    made.filters |= {"position": words.position, "megabytes": words.megabytes, "svg": Markup}
    return made


def _template(name: str) -> Template:
    return _environment().get_template(name)
