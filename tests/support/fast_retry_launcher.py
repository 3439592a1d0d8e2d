"""Runs the muxer as muxer_process.py does, with short retry delays and a short wait for another muxer, which is dead."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from muxer.app import cli  # noqa: E402
from muxer.journal import retry_policy  # noqa: E402
from muxer.pipeline import store_and_publish  # noqa: E402
from muxer.scheduling import attempts  # noqa: E402

retry_policy.PERMANENT_DELAY_SECONDS = retry_policy.FIRST_DELAY_SECONDS = 0.5
attempts.MIGRATION_WAIT_SECONDS = 0.3
store_and_publish.PUBLISH_WAIT_SECONDS = 1.0

if __name__ == "__main__":
    sys.exit(cli.run_muxer(sys.argv[1:]))
