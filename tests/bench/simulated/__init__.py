"""A fleet without media, as events: what it would do with a day of recordings. Used by :mod:`tests.bench.simulation`."""
