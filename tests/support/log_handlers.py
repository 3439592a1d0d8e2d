"""The handlers of Python's logging, as they were before a test that starts the log of the muxer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored_log_handlers() -> Iterator[None]:
    """Run without handlers of the root logger; close those that were added, and restore handlers and levels."""
    root, own = logging.getLogger(), logging.getLogger("muxer")
    handlers, levels = list(root.handlers), (root.level, own.level)
    root.handlers.clear()
    try:
        yield
    finally:
        for handler in list(root.handlers):
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])
