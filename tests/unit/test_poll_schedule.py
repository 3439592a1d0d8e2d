"""How far back each poll looks: the schedule of reaches alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.polling.schedule import PollSchedule, next_newest_pass, plan_reaches

HOUR = 3600.0


def run_schedule(schedule: PollSchedule, interval: float, count: int) -> list[float]:
    """Return the reaches of `count` polls."""
    reaches = []
    for number in range(count):
        now = number * interval
        reaches.append(schedule.due_reach(now))
        schedule.record_pass(reaches[-1], now)
    return reaches


def test_reaches_double_up_to_the_window() -> None:
    reaches = [(one.seconds / 60, one.period / 60) for one in plan_reaches(12 * HOUR, 300)]
    assert reaches == [(100, 5), (200, 10), (400, 20), (720, 40)]


@pytest.mark.parametrize("interval", [0.0, 1.0, 60.0])
def test_the_last_hour_is_read_at_each_poll(interval: float) -> None:
    first, *others = plan_reaches(12 * HOUR, interval)
    assert first.seconds == HOUR and first.period == max(interval, 1.0)
    assert all(longer.period <= shorter.seconds / 10 for shorter, longer in zip([first, *others], others, strict=False))


@pytest.mark.parametrize("window", [1.0, HOUR, 6000.0])
def test_a_short_window_is_read_at_each_poll(window: float) -> None:
    assert [one.seconds for one in plan_reaches(window, 300)] == [window]


def test_each_poll_reads_the_whole_window_when_the_option_says_so() -> None:
    assert run_schedule(PollSchedule(12 * HOUR, 300, always_whole=True), 300, 3) == [12 * HOUR] * 3


def test_the_first_poll_reads_the_whole_window_and_the_next_ones_the_newest_calls() -> None:
    polls = [reach / 60 for reach in run_schedule(PollSchedule(12 * HOUR, 300), 300, 9)]
    assert polls == [720, 100, 200, 100, 400, 100, 200, 100, 720]


def test_polls_read_a_third_of_the_window() -> None:
    polls = run_schedule(PollSchedule(12 * HOUR, 300), 300, 8 * 50)
    assert sum(polls[8:]) / len(polls[8:]) <= 12 * HOUR / 3


def test_a_pass_that_did_not_end_stays_due() -> None:
    schedule = PollSchedule(12 * HOUR, 300)
    assert schedule.due_reach(0) == schedule.whole
    schedule.record_pass(schedule.shortest, 0)
    assert schedule.due_reach(300) == schedule.whole and schedule.seconds_to_whole(300) == 0
    schedule.record_pass(schedule.whole, 300)
    assert schedule.due_reach(301) == schedule.shortest and schedule.seconds_to_whole(300) == 2400 - 150


def test_a_reset_makes_the_whole_window_due() -> None:
    schedule = PollSchedule(12 * HOUR, 300)
    schedule.record_pass(schedule.whole, 0)
    schedule.reset()
    assert schedule.due_reach(1) == schedule.whole


def test_only_a_poll_that_may_be_long_reads_the_newest_calls_first() -> None:
    schedule = PollSchedule(12 * HOUR, 300)

    def passes(minutes: float) -> list[float]:
        return [one / 60 for one in schedule.plan_passes(minutes * 60)]

    assert passes(720) == [100, 200, 400, 720]
    schedule.record_duration(400 * 60, 149)
    assert passes(400) == [400] and passes(720) == [100, 200, 400, 720]
    schedule.record_duration(400 * 60, 151)
    assert passes(400) == [100, 200, 400] and passes(200) == [200]
    schedule.record_duration(720 * 60, 10)
    assert passes(720) == [720]


def test_a_long_poll_reads_the_newest_calls_again_without_starving_older_ones() -> None:
    assert next_newest_pass(1000, 1100, 300) == 1300
    assert next_newest_pass(1000, 1500, 300) == 1650


@given(st.floats(0.5, 30), st.floats(60, 1440), st.floats(0, 1), st.floats(0, 300))
def test_what_arrives_is_found_within_a_tenth_of_its_age(
    interval: float, window: float, part: float, arrival_poll: float
) -> None:
    """In minutes. A call near the end of a reach leaves it while it waits: that costs at most a twentieth more."""
    age = part * (window - max(interval, window / 9)) * 0.99
    schedule, arrival, number = PollSchedule(window * 60, interval * 60), arrival_poll * interval, 0
    while (now := number * interval) < 2 * window + arrival:
        reach = schedule.due_reach(now * 60) / 60
        schedule.record_pass(reach * 60, now * 60)
        if now >= arrival and age + now - arrival <= reach:
            break
        number += 1
    assert now - arrival <= max(interval, age / 9.5) * 1.0001
