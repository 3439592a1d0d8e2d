"""Benchmarks: ``python -m tests.bench``. How to read them: docs/performance.md."""
