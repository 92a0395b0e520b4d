"""The cluster of three NATS servers: who leads, what is stored, and a queue that is full."""

import asyncio
import contextlib
import json
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nats

from tests.parts.nats_cluster import SIZE, Cluster

TASKS = "archiver_tasks"
ANSWER_S = 5.0


class Engine:
    """Wraps a cluster. Servers are numbered from 0."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    @property
    def url(self) -> str:
        return ",".join(self.cluster.urls)

    def is_running(self, number: int) -> bool:
        process = self.cluster.processes.get(number)
        return process is not None and process.poll() is None

    def kill(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.cluster.processes[number].kill()
            self.cluster.processes[number].wait()

    def stop(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.cluster.down(number)

    def wipe(self, numbers: Sequence[int]) -> None:
        """Kill servers and delete what they have stored."""
        self.kill(numbers)
        for number in numbers:
            shutil.rmtree(self.cluster.store(number), ignore_errors=True)

    def mend(self) -> None:
        """Start the servers that do not run."""
        for number in range(SIZE):
            if not self.is_running(number):
                with contextlib.suppress(KeyError):
                    self.cluster.down(number)
                self.cluster.up(number)

    @contextlib.contextmanager
    def frozen(self, numbers: Sequence[int]) -> Iterator[None]:
        processes = [self.cluster.processes[number] for number in numbers]
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)

    def leader(self) -> int | None:
        """Return the server that leads the work queue, if one answers that."""
        with contextlib.suppress(Exception):
            info = asyncio.run(self._ask(f"STREAM.INFO.{TASKS}"))
            return int(info["cluster"]["leader"].removeprefix("server"))
        return None

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """Have the work queue refuse new messages during the block."""
        config = self._task_config()
        self._update({**config, "max_msgs": 1})
        try:
            yield
        finally:
            self._update(config)

    def _task_config(self) -> dict[str, Any]:
        config: dict[str, Any] = asyncio.run(self._ask(f"STREAM.INFO.{TASKS}"))["config"]
        return config

    def _update(self, config: Mapping[str, Any]) -> None:
        answer = asyncio.run(self._ask(f"STREAM.UPDATE.{TASKS}", config))
        if "error" in answer:
            raise AssertionError(f"the stream was not changed: {answer['error']}")

    async def _ask(self, subject: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of JetStream's own interface, from whichever server is up."""
        client = await nats.connect(
            servers=self.cluster.urls,
            connect_timeout=ANSWER_S,
            allow_reconnect=False,
            error_cb=_ignore,
        )
        try:
            payload = json.dumps(body).encode() if body else b""
            answer = await client.request(f"$JS.API.{subject}", payload, timeout=ANSWER_S)
            result: dict[str, Any] = json.loads(answer.data)
            return result
        finally:
            await client.close()


async def _ignore(_error: Exception) -> None:
    """Print nothing: servers are expected to be down."""
