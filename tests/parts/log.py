"""The log of the test process: each test begins with the one that structlog has by default."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from archiver.telemetry import log


@pytest.fixture(autouse=True)
def _default_log() -> Iterator[None]:
    """Undo ``set_up_logging``, which commands call in the process of their test.

    A logger remembers the settings of its first line. ``capture_logs`` would miss its lines after
    another ``set_up_logging``.
    """
    root, ours = logging.getLogger(), logging.getLogger("archiver")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    if structlog.is_configured():
        root.handlers[:] = handlers
        root.setLevel(level)
        ours.setLevel(our_level)
        structlog.reset_defaults()
        vars(log).pop("bind", None)
