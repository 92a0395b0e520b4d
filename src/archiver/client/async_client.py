"""The client of Archiver for programs that use asyncio. Each call takes a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from archiver.client.api_response import Located, TaskStatus
from archiver.client.archive_get import Got
from archiver.client.archive_request import ArchiveRequest
from archiver.client.client import Client
from archiver.client.deadline import Deadline
from archiver.client.extraction import Unpacking

T = TypeVar("T")


class AsyncClient:
    """Has the methods of *client*, as coroutines. A call that is cancelled ends soon."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    async def locate(self, request: ArchiveRequest) -> Located:
        return await self._run(lambda deadline: self._client.locate(request, deadline=deadline))

    async def get(
        self,
        request: ArchiveRequest,
        output: str | os.PathLike[str] | None = None,
        *,
        force: bool = False,
        unpacking: Unpacking | None = None,
    ) -> Got:
        return await self._run(
            lambda deadline: self._client.get(
                request, output, force=force, unpacking=unpacking, deadline=deadline
            )
        )

    async def status(self, task: str) -> TaskStatus:
        return await self._run(lambda deadline: self._client.status(task, deadline=deadline))

    async def _run(self, call: Callable[[Deadline], T]) -> T:
        deadline = self._client.deadline()
        try:
            return await asyncio.to_thread(call, deadline)
        except asyncio.CancelledError:
            deadline.cancel()
            raise
