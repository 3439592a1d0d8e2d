"""Families of metrics, made in one line. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

Labelled = Iterable[tuple[tuple[str, ...], float]]


def single(values: Mapping[str, float]) -> Labelled:
    """Given values by one label, return them as a family wants them."""
    return (((name,), value) for name, value in values.items())


def gauge(name: str, help_text: str, value: float) -> Metric:
    """Given name, help and value of a gauge, return it."""
    return GaugeMetricFamily(name, help_text, value=float(value))


def counter(name: str, help_text: str, value: float) -> Metric:
    """Given name, without ``_total``, help and value of a counter, return it."""
    return CounterMetricFamily(name, help_text, value=float(value))


def gauges(name: str, help_text: str, labels: list[str], values: Labelled) -> Metric:
    """Given name, help, names of labels and values by labels of a gauge, return it."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for names, value in values:
        family.add_metric(names, float(value))
    return family


def counters(name: str, help_text: str, labels: list[str], values: Labelled) -> Metric:
    """Given name, without ``_total``, help, names of labels and values by labels of a counter, return it."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for names, value in values:
        family.add_metric(names, float(value))
    return family
