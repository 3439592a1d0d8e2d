"""The suites of faults and kills; long: ``python -m tests.faults``."""
