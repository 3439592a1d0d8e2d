"""Benchmarks: ``python -m tests.bench``. How to read them: docs/developer/performance.md."""
