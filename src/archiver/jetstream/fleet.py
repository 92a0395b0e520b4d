"""The fleet's running workers, and the health of its queue."""

from collections.abc import Sequence

from archiver.errors import ArchiverError, EngineUnavailable
from archiver.jetstream.connection import Connection
from archiver.jetstream.queue_probe import QueueProbe
from archiver.jetstream.replication import Replication
from archiver.jetstream.worker_reports import request_reports
from archiver.ports.queue import WorkerReport


class JetStreamFleet:
    """Implements ``ports.queue.Fleet``."""

    def __init__(self, *, connection: Connection) -> None:
        self._connection = connection
        self._replication = Replication(connection=connection, wanted=connection.streams.replicas)
        self._probe = QueueProbe(connection=connection)

    async def workers(self) -> Sequence[WorkerReport]:
        return await request_reports(self._connection.requests)

    async def check(self) -> ArchiverError | None:
        try:
            await self._require_leaders()
            await self._probe.run()
        except EngineUnavailable as exc:
            return exc
        return None

    async def _require_leaders(self) -> None:
        streams = await self._replication.status()
        if leaderless := [name for stream in streams for name in stream.leaderless]:
            raise EngineUnavailable(f"no server of the engine leads {', '.join(leaderless)}")
