"""The four ports in memory: quick, without a network, and as strict as the real ones.

For tests of what uses them. ``tests/contracts`` holds them to what ``ports.py`` promises. Each has
switches to make it fail in the ways that the real part does.
"""

from archiver.testing.buckets import MemoryStorage
from archiver.testing.engine import MemoryEngine
from archiver.testing.formats import FakeConverter, GzipVerifier
from archiver.testing.hosts import FakeSource
from archiver.testing.index import MemoryIndex
from archiver.testing.tasks import FakeAttempt
from archiver.testing.work_queue import MemoryWorkQueue

__all__ = [
    "FakeAttempt",
    "FakeConverter",
    "FakeSource",
    "GzipVerifier",
    "MemoryEngine",
    "MemoryIndex",
    "MemoryStorage",
    "MemoryWorkQueue",
]
