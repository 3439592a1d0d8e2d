"""Families of metrics, made in one line. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

LabelledValues = Iterable[tuple[tuple[str, ...], float]]


def single_label(values: Mapping[str, float]) -> LabelledValues:
    """Given values by one label, return them as a family wants them."""
    return (((name,), value) for name, value in values.items())


def gauge_metric(name: str, help_text: str, value: float) -> Metric:
    """Given name, help and value of a gauge, return it."""
    return GaugeMetricFamily(name, help_text, value=float(value))


def counter_metric(name: str, help_text: str, value: float) -> Metric:
    """Given name, without ``_total``, help and value of a counter, return it."""
    return CounterMetricFamily(name, help_text, value=float(value))


def labelled_gauge(name: str, help_text: str, labels: list[str], values: LabelledValues) -> Metric:
    """Given name, help, names of labels and values by labels of a gauge, return it."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for names, value in values:
        family.add_metric(names, float(value))
    return family


def labelled_counter(name: str, help_text: str, labels: list[str], values: LabelledValues) -> Metric:
    """Given name, without ``_total``, help, names of labels and values by labels of a counter, return it."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for names, value in values:
        family.add_metric(names, float(value))
    return family
