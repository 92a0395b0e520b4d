"""An ASGI client that sends any bytes to the application, without an HTTP library in between."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.types import Message

from archiver.access.access import Access
from archiver.access.policy import Policy, SourcePolicy
from archiver.web.app import Services, create_app
from archiver.web.application import Application
from archiver.web.request_context import WebConfig, WebState
from tests.memory_world import ASH, World

T = TypeVar("T")

PUBLIC_URL = "https://archiver.example"
DEFAULT = f"/archiver/hgmo/{ASH}/default"
CONFIG = WebConfig(
    public_url=PUBLIC_URL, retry_after_s=3, version={"version": "1.2.3", "commit": "c0ffee"}
)


@dataclass(frozen=True, kw_only=True)
class ClientResponse:
    status: int
    headers: Headers
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - it is JSON
        return json.loads(self.body)

    @property
    def result(self) -> dict[str, Any]:
        """The result of a status."""
        assert self.status == 200, self.body
        result: dict[str, Any] = self.json["result"]
        return result

    @property
    def code(self) -> str:
        """The code of a problem."""
        assert self.headers["content-type"] == "application/problem+json"
        code: str = self.json["code"]
        return code


class Client:
    """The application in a world of fakes."""

    def __init__(self, *, world: World, runner: asyncio.Runner, app: Application) -> None:
        self.world = world
        self._runner = runner
        self._app = app
        self._life = _Life(app)
        self.run = runner.run
        self.peer: str | None = "192.0.2.1"

    @property
    def state(self) -> WebState:
        """The parts of the running application."""
        return self._app.state

    def begin(self) -> None:
        self.run(self._life.begin())

    def end(self) -> None:
        self.run(self._life.end())

    def get(self, target: str | bytes, **headers: str) -> ClientResponse:
        return self.request("GET", target, **headers)

    def head(self, target: str | bytes, **headers: str) -> ClientResponse:
        return self.request("HEAD", target, **headers)

    def request(self, method: str, target: str | bytes, **headers: str) -> ClientResponse:
        raw = target.encode() if isinstance(target, str) else target
        path, _, query = raw.partition(b"?")
        return self._runner.run(self._send(method, path, query, headers))

    def post(self, target: str, *pieces: bytes, **headers: str) -> ClientResponse:
        """Send a body in *pieces*. Header names may have underscores."""
        path, _, query = target.encode().partition(b"?")
        return self._runner.run(self._send("POST", path, query, headers, pieces=pieces or (b"",)))

    def post_json(self, target: str, content: object, **headers: str) -> ClientResponse:
        body = json.dumps(content).encode()
        return self.post(target, body, **{"content-type": "application/json", **headers})

    async def request_async(
        self,
        target: str,
        *,
        client: str | None = None,
        leaves: asyncio.Event | None = None,
        takes: Callable[[bytes], Awaitable[None]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> ClientResponse:
        """Return the response to a client that may leave, and *takes* each piece of the body."""
        path, _, query = target.removeprefix(PUBLIC_URL).encode().partition(b"?")
        return await self._send(
            "GET", path, query, dict(headers or {}), client=client, leaves=leaves, takes=takes
        )

    def work(self) -> None:
        """Run all tasks that are waiting."""
        self._runner.run(self.world.work())

    async def _send(
        self,
        method: str,
        path: bytes,
        query: bytes,
        headers: dict[str, str],
        *,
        client: str | None = None,
        leaves: asyncio.Event | None = None,
        takes: Callable[[bytes], Awaitable[None]] | None = None,
        pieces: Sequence[bytes] = (b"",),
    ) -> ClientResponse:
        sent: list[Message] = []

        received = iter(
            [
                {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
                for number, piece in enumerate(pieces, 1)
            ]
        )

        async def receive() -> Message:
            """Return the request, and later a disconnect once the client leaves."""
            for message in received:
                return message
            await (leaves or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if takes and "body" in message:
                await takes(message["body"])

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path.decode("utf-8", "replace"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [
                (name.replace("_", "-").lower().encode(), value.encode())
                for name, value in {"host": "archiver.example", **headers}.items()
            ],
            "client": (client or self.peer, 1234) if client or self.peer else None,
            "server": ("127.0.0.1", 8010),
        }
        await self._app(scope, receive, send)
        start, *bodies = sent
        return ClientResponse(
            status=start["status"],
            headers=Headers(raw=start["headers"]),
            body=b"".join(message.get("body", b"") for message in bodies),
        )


def open_access(world: World) -> Access:
    return Access(Policy(sources={world.source.name: SourcePolicy()}))


@contextmanager
def client(
    world: World, *, config: WebConfig = CONFIG, access: Access | None = None
) -> Iterator[Client]:
    """Yield a client of a running application, and stop the application afterwards.

    Without *access*, everybody may have everything of the world's source built.
    """

    @asynccontextmanager
    async def open_services() -> AsyncIterator[Services]:
        yield world.archiver, world.operations

    app = create_app(
        open_services=open_services, config=config, access=access or open_access(world)
    )
    with asyncio.Runner() as runner:
        speaking = Client(world=world, runner=runner, app=app)
        speaking.begin()
        try:
            yield speaking
        finally:
            speaking.end()


class _Life:
    """Starts and stops the application as a server does."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._running: asyncio.Future[None] | None = None
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self._said: asyncio.Queue[Message] = asyncio.Queue()

    async def begin(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}}
        self._running = asyncio.ensure_future(self._app(scope, self._told.get, self._said.put))
        await self._tell("lifespan.startup")

    async def end(self) -> None:
        if self._running:
            await self._tell("lifespan.shutdown")
            await self._running
            self._running = None

    async def _tell(self, event: str) -> None:
        await self._told.put({"type": event})
        assert (await self._said.get())["type"] == f"{event}.complete"
