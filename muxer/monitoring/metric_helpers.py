"""Creates metric families. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

LabelledValues = Iterable[tuple[tuple[str, ...], float]]


def single_label(values: Mapping[str, float]) -> LabelledValues:
    """Return values by one label in the form of the functions below."""
    return (((name,), value) for name, value in values.items())


def gauge_metric(name: str, help_text: str, value: float) -> Metric:
    """Create a gauge."""
    return GaugeMetricFamily(name, help_text, value=float(value))


def counter_metric(name: str, help_text: str, value: float) -> Metric:
    """Create a counter. `name` is without `_total`."""
    return CounterMetricFamily(name, help_text, value=float(value))


def labelled_gauge(name: str, help_text: str, labels: list[str], values: LabelledValues) -> Metric:
    """Create a gauge with labels."""
    family = GaugeMetricFamily(name, help_text, labels=labels)
    for names, value in values:
        family.add_metric(names, float(value))
    return family


def labelled_counter(name: str, help_text: str, labels: list[str], values: LabelledValues) -> Metric:
    """Create a counter with labels. `name` is without `_total`."""
    family = CounterMetricFamily(name, help_text, labels=labels)
    for names, value in values:
        family.add_metric(names, float(value))
    return family
