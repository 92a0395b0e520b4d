"""Fakes of ports, in memory: quick, without a network, and as strict as the real adapters.

``tests/contracts`` holds each fake and its real adapter to the promises in ``ports/``. Switches
make a fake fail in the ways of the real part. ``TaskEvents``, ``ArchiveInventory`` and the entries
of the index have no fake, so their tests use the real adapters.
"""

from archiver.testing.breakers import MemoryBreakers
from archiver.testing.engine import FakeAttempt, MemoryEngine
from archiver.testing.formats import FakeConverter, GzipVerifier
from archiver.testing.hosts import FakeSource
from archiver.testing.index import MemoryIndex
from archiver.testing.last_uses import MemoryLastUses
from archiver.testing.schedule import MemorySchedule
from archiver.testing.stock_book import MemoryStockBook
from archiver.testing.storage import MemoryStorage
from archiver.testing.task_list import MemoryTaskList
from archiver.testing.work_queue import MemoryWorkQueue

__all__ = [
    "FakeAttempt",
    "FakeConverter",
    "FakeSource",
    "GzipVerifier",
    "MemoryBreakers",
    "MemoryEngine",
    "MemoryIndex",
    "MemoryLastUses",
    "MemorySchedule",
    "MemoryStockBook",
    "MemoryStorage",
    "MemoryTaskList",
    "MemoryWorkQueue",
]
