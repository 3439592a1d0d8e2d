"""Event simulation of a fleet without media over a day of recordings. Used by :mod:`tests.bench.simulation`."""
