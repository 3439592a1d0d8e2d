"""Real runs against an RWS that refuses labels: the muxed file is published, and the recording does not fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.lab import Lab
from tests.support.calls import add_short, log_messages, log_of, muxed_entries, write_config
from tests.support.daemon import FAST_RETRY, run_muxer
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
MIGRATION = {"advanced__call_recording_query_string": "startTime=0", "advanced__worker_threads": "1"}
TIMEOUT_SECONDS = 60
REFUSALS = (400, 403, 404, 405, 422)


def count_posts(lab: Lab, part: str) -> int:
    return len([request for request in lab.store.served_requests if request.method == "POST" and part in request.path])


@pytest.mark.parametrize("status", spread_variants(REFUSALS, 8))
@pytest.mark.parametrize("envelope_only", spread_variants([False, True], 2))
def test_a_refused_label_is_a_warning_and_no_failure(make_lab: Make, status: int, envelope_only: bool) -> None:
    lab = make_lab(label_refusal=status, error_in_envelope=envelope_only)
    calls = add_short(lab, range(3))
    config = write_config(lab, **MIGRATION)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0 and "3 files muxed" in done.out and " 0 failed" in done.out, done.out
    assert all(len(muxed_entries(lab, call.id)) == 1 for call in calls) and not lab.store.label_posts
    (warned,) = [message for message in log_messages(log_of(config)) if "labels are not set for 60 minutes" in message]
    assert "Not possible" in warned
    assert (count_posts(lab, "/labels"), count_posts(lab, "/recording-label-definitions")) == (3, 1)


@pytest.mark.parametrize("count", spread_variants([1, 3], 2))
@pytest.mark.parametrize("envelope_only", spread_variants([False, True], 2))
def test_a_label_that_always_fails_is_a_warning_and_no_failure(make_lab: Make, envelope_only: bool, count: int) -> None:
    lab = make_lab(label_refusal=500, error_in_envelope=envelope_only)
    calls = add_short(lab, range(count))
    config = write_config(lab, **MIGRATION)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0 and " 0 failed" in done.out, done.out
    assert all(len(muxed_entries(lab, call.id)) == 1 for call in calls) and not lab.store.label_posts
    (warned,) = [message for message in log_messages(log_of(config)) if "labels are not set for 60 minutes" in message]
    assert "Not possible" in warned and count_posts(lab, "/labels") == 4


@pytest.mark.parametrize("status", spread_variants(REFUSALS, 6))
def test_the_path_without_ops_is_used_where_rws_accepts_only_that(make_lab: Make, status: int) -> None:
    lab = make_lab(label_refusal=status, label_without_ops=True)
    calls = add_short(lab, range(3))
    config = write_config(lab, **MIGRATION)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0, done.out
    assert sorted(lab.store.label_posts) == sorted((call.id, "screenRecording") for call in calls)
    assert (
        len([message for message in log_messages(log_of(config)) if "labels are set by the path without ops" in message])
        == 1
    )
    assert count_posts(lab, "/labels") == 5


@pytest.mark.parametrize("status", spread_variants([400, 404], 2))
def test_a_missing_definition_is_created_whatever_the_text_of_the_refusal(make_lab: Make, status: int) -> None:
    lab = make_lab(label_definition=False, label_missing_answer=status)
    calls = add_short(lab, range(2))
    done = run_muxer(write_config(lab, **MIGRATION), seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0
    assert len(lab.store.label_posts) == len(calls) and count_posts(lab, "/recording-label-definitions") == 1
