"""Requests that obstore has no call for, sent here to URLs that obstore signs."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from http import HTTPStatus
from typing import Literal

import aiohttp
import obstore
from obstore.exceptions import BaseError
from yarl import URL

from archiver import __version__
from archiver.errors import StorageUnavailable
from archiver.storage.s3_errors import REDIRECTED, TIMEOUT, WRONG_REGION, response_code, s3_code
from archiver.storage.s3_stores import CONTROL_TIMEOUT, S3Settings, proxy_url, signing_store
from archiver.storage.transport_errors import lost_code
from archiver.tls import create_ssl_context

SIGNATURE_TTL = timedelta(minutes=15)
"""S3 tolerates clocks that differ by so much."""

BODY_MAX_BYTES = 8 << 20
"""S3 lists a thousand uploads at a time, which are less than 2 MiB."""


_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: bytes
    redirected: bool = False

    @property
    def failed(self) -> bool:
        """Whether it is an error, or a redirect, which is not followed."""
        return self.status >= HTTPStatus.MULTIPLE_CHOICES

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed soon."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR or self.status in _BUSY

    @property
    def code(self) -> str:
        """The code of an error."""
        if self.status < HTTPStatus.BAD_REQUEST:
            return REDIRECTED if self.redirected else WRONG_REGION
        return response_code(self.status, self.body.decode(errors="replace"))


class SignedRequests:
    """Requests to one bucket. In errors, *subject* names it, and *action* what they are for."""

    def __init__(
        self,
        settings: S3Settings,
        *,
        action: str,
        subject: str = "the bucket",
        timeout: timedelta = CONTROL_TIMEOUT,
    ) -> None:
        self._settings = settings
        self._failure = f"{subject} did not {action}"
        self._timeout_s = timeout.total_seconds()

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        """Reading the authorities takes 25 ms."""
        return create_ssl_context(self._settings.ca_file)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[aiohttp.ClientSession, None]:
        """Yield a session. Failures in the block raise StorageUnavailable."""
        try:
            connector = aiohttp.TCPConnector(ssl=self._ssl_context)
            async with aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                headers={"Accept-Encoding": "identity", "User-Agent": f"archiver/{__version__}"},
                auto_decompress=False,  # a few bytes can become gigabytes
            ) as session:
                yield session
        except TimeoutError as exc:
            raise StorageUnavailable(f"{self._failure} in time", s3_code=TIMEOUT) from exc
        except BaseError as exc:
            raise StorageUnavailable(self._failure, s3_code=s3_code(exc)) from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise StorageUnavailable(self._failure, s3_code=lost_code(exc)) from exc

    def failure(self, answer: Answer) -> StorageUnavailable:
        """Return the error for *answer*, which has failed."""
        return StorageUnavailable(self._failure, s3_code=answer.code)

    async def send(
        self,
        session: aiohttp.ClientSession,
        method: Literal["GET", "DELETE"],
        path: str,
        query: str,
    ) -> Answer:
        """Return the answer to a request for *path* below the bucket, with *query*."""
        store = signing_store(self._settings, f"{path}?{query}")
        async with asyncio.timeout(self._timeout_s):
            url = await obstore.sign_async(store, method, "-", SIGNATURE_TTL)
        async with session.request(
            method,
            URL(url, encoded=True),
            allow_redirects=False,
            proxy=proxy_url(self._settings),
        ) as response:
            return Answer(
                status=response.status,
                body=await self._read_body(response),
                redirected="Location" in response.headers,
            )

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        announced = response.content_length or 0
        async for chunk in response.content.iter_any():
            body += chunk
            if max(announced, len(body)) > BODY_MAX_BYTES:
                raise StorageUnavailable(
                    f"{self._failure}: its answer has more than {BODY_MAX_BYTES:,} bytes"
                )
        return bytes(body)
