"""Archiver for programs: locate archives, wait until they are built, download and verify them.

>>> from archiver.client import ArchiveRequest, Client
>>> with Client("https://archiver.example.org") as client:
...     got = client.get(ArchiveRequest("hgmo", "projects/ash", "default"), "ash.tar.gz")
>>> got.located.sha256
"""

from archiver.client.api_response import Located, TaskStatus
from archiver.client.archive_get import Got
from archiver.client.archive_request import ArchiveRequest
from archiver.client.cache import Cache
from archiver.client.client import Client
from archiver.client.events import Events
from archiver.client.extraction import Unpacking
from archiver.client.failures import (
    CommandFailed,
    InvalidUsage,
    LimitReached,
    NotFound,
    RetryLater,
    TimedOut,
    Unfinished,
    WrongBytes,
)

__all__ = [
    "ArchiveRequest",
    "Cache",
    "Client",
    "CommandFailed",
    "Events",
    "Got",
    "InvalidUsage",
    "LimitReached",
    "Located",
    "NotFound",
    "RetryLater",
    "TaskStatus",
    "TimedOut",
    "Unfinished",
    "Unpacking",
    "WrongBytes",
]
