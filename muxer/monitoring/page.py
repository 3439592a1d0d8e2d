"""Renders the status page and the page of one recording: HTML without scripts, other files or other servers."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from muxer.journal.journal import SET_ASIDE
from muxer.monitoring import fleet_rows, rows, timeline_svg
from muxer.monitoring.history_charts import create_charts
from muxer.monitoring.summary import summarize_view
from muxer.monitoring.view import StatusView
from muxer.status import formatting, timeline_view

REFRESH_INTERVAL = 20
TEMPLATE_FOLDER = Path(__file__).with_name("templates")
STYLE_SHEET = (TEMPLATE_FOLDER / "style.css").read_text(encoding="utf-8")
_STYLE_DIGEST = base64.b64encode(hashlib.sha256(STYLE_SHEET.encode()).digest()).decode()
# The pages load only their embedded style sheet, allowed by its digest, and the embedded icon.
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render_status_page(view: StatusView, refresh: bool = True) -> str:
    """Return the status page. With `refresh` it reloads itself every :data:`REFRESH_INTERVAL` seconds."""
    now = view.at
    running = view.running[: fleet_rows.MAX_SHOWN]
    failures = tuple(map(rows.failure_row, view.failures))
    return _load_template("page.html").render(
        view=view,
        refresh=REFRESH_INTERVAL if refresh else 0,
        summary=summarize_view(view),
        services=tuple(rows.service_row(service, view.known_names) for service in view.services),
        running=tuple(rows.job_row(job, now, worker) for worker, job in running),
        fleet=fleet_rows.fleet_summary(view.fleet) if view.fleet else None,
        failures=sorted(failures, key=lambda failure: failure.state != SET_ASIDE),
        recent=tuple(map(rows.finished_row, view.recent)),
        day=create_charts(view),
    )


def render_recording(view: StatusView, name: str) -> str | None:
    """Return the page with the timeline of the muxed file `name`; None when `view` does not contain that."""
    row = next((record for record in view.recent if record.name == name), None)
    timeline = timeline_view.read_timeline(row.facts.get("timeline")) if row else None
    if row is None or timeline is None:
        return None
    return _load_template("recording.html").render(
        view=view,
        refresh=0,
        summary=summarize_view(view),
        recording=rows.finished_row(row),
        timeline=timeline,
        sentence=timeline_view.timeline_summary(timeline),
        drawing=Markup(timeline_svg.render_timeline(timeline, "timeline")),
        screens=[(screen, timeline_view.screen_text(screen, timeline)) for screen in timeline.screens],
        overlaps=[timeline_view.overlap_text(*overlap) for overlap in timeline.find_overlaps()],
        parts=timeline_view.merge_parts(timeline.parts),
    )


@cache
def _jinja_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"style": Markup(STYLE_SHEET), "kinds": timeline_view.KIND_LABELS, "quote": quote}
    environment.filters |= {
        name: getattr(formatting, name)
        for name in ("format_time", "format_datetime", "iso", "format_span", "format_ago", "single_line", "redact")
    }
    environment.filters |= {"position": formatting.format_position, "megabytes": formatting.format_megabytes, "svg": Markup}
    return environment


def _load_template(name: str) -> Template:
    return _jinja_environment().get_template(name)
