"""The command ``python -m tests.bench``: prints a table and writes JSON for comparisons."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from muxer import __version__
from muxer.app.program_checks import program_version
from muxer.system.process import Runner
from tests.bench import (
    audit,
    backlog,
    engine,
    failing_services,
    fleet,
    memory,
    pipeline,
    polling,
    scaling,
    simulation,
    start,
)
from tests.bench.inputs import PROGRAMS
from tests.bench.measure import TABLE_HEADER, BenchSetting, Figure, format_row

TOPICS = {
    "engine": engine.measure,
    "pipeline": pipeline.measure,
    "memory": memory.measure,
    "polling": polling.measure,
    "audit": audit.measure,
    "start": start.measure,
    "scaling": scaling.measure,
    "backlog": backlog.measure,
    "failing": failing_services.measure,
    "fleet": fleet.measure,
    "simulation": simulation.measure,
}
GOAL_MISSED = 1


def main(argv: Sequence[str]) -> int:
    """Measure and print. Returns 0, or 1 when a goal is missed (not with --quick)."""
    options = _build_parser().parse_args(argv)
    figures: dict[str, list[Figure]] = {}
    print(TABLE_HEADER, flush=True)
    for topic in options.only:
        figures[topic] = []
        with TemporaryDirectory(prefix="muxer-bench-") as folder:
            for figure in TOPICS[topic](BenchSetting(Path(folder), options.quick)):
                figures[topic].append(figure)
                print(format_row(topic, figure), flush=True)
    if options.json:
        options.json.write_text(json.dumps(_build_report(figures, options.quick), indent=1))
    missed = any(figure.meets_goal is False for several in figures.values() for figure in several)
    return GOAL_MISSED if missed and not options.quick else 0


def _build_report(figures: dict[str, list[Figure]], quick: bool) -> dict[str, object]:
    return {
        "muxer": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "ffmpeg": program_version(Runner(), PROGRAMS["ffmpeg"], "-version"),
        },
        "figures": {topic: [one.to_json() for one in several] for topic, several in figures.items()},
    }


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Benchmarks of the Recording Muxer.")
    parser.add_argument("--only", type=_parse_topics, default=list(TOPICS), help=f"some of: {','.join(TOPICS)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that the benchmarks work, measures nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    return parser


def _parse_topics(text: str) -> list[str]:
    topics = text.split(",")
    if unknown := set(topics) - TOPICS.keys():
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(TOPICS)}")
    return topics


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
