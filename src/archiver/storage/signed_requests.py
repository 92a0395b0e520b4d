"""Requests that obstore has no call for, sent here to URLs that obstore signs."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Literal

import aiohttp
import obstore
from obstore.exceptions import BaseError
from yarl import URL

from archiver.errors import StorageUnavailable
from archiver.storage.s3_errors import TIMEOUT, response_code, s3_code
from archiver.storage.s3_stores import CONTROL_TIMEOUT, S3Settings, proxy_url, signing_store
from archiver.tls import create_ssl_context

SIGNATURE_TTL = timedelta(minutes=1)

BODY_MAX_BYTES = 8 << 20
"""S3 lists a thousand uploads at a time, which are less than 2 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: bytes

    @property
    def failed(self) -> bool:
        """Whether it is an error, or a redirect, which is not followed."""
        return self.status >= HTTPStatus.MULTIPLE_CHOICES

    @property
    def code(self) -> str:
        """The code of an error."""
        return response_code(self.status, self.body.decode(errors="replace"))


class SignedRequests:
    """Requests to one bucket. *action* names what they are for, in errors."""

    def __init__(self, settings: S3Settings, *, action: str) -> None:
        self._settings = settings
        self._action = action

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[aiohttp.ClientSession, None]:
        """Yield a session. Failures in the block raise StorageUnavailable."""
        timeout = aiohttp.ClientTimeout(total=CONTROL_TIMEOUT.total_seconds())
        try:
            connector = aiohttp.TCPConnector(ssl=create_ssl_context(self._settings.ca_file))
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                yield session
        except TimeoutError as exc:
            message = f"the bucket did not {self._action} in time"
            raise StorageUnavailable(message, s3_code=TIMEOUT) from exc
        except (aiohttp.ClientError, BaseError, OSError, ValueError) as exc:
            message = f"the bucket did not {self._action}"
            raise StorageUnavailable(message, s3_code=s3_code(exc)) from exc

    async def send(
        self,
        session: aiohttp.ClientSession,
        method: Literal["GET", "DELETE"],
        path: str,
        query: str,
    ) -> Answer:
        """Return the answer to a request for *path* below the bucket, with *query*."""
        store = signing_store(self._settings, f"{path}?{query}")
        url = await obstore.sign_async(store, method, "-", SIGNATURE_TTL)
        async with session.request(
            method,
            URL(url, encoded=True),
            allow_redirects=False,
            proxy=proxy_url(self._settings),
        ) as response:
            return Answer(status=response.status, body=await self._read_body(response))

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > BODY_MAX_BYTES:
                raise StorageUnavailable(
                    f"the bucket did not {self._action}: "
                    f"its answer has more than {BODY_MAX_BYTES:,} bytes"
                )
        return bytes(body)
