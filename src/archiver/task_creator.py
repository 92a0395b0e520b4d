"""Tasks that requests for missing archives create."""

from dataclasses import dataclass

from archiver.building.builder import Builder
from archiver.errors import PartOrigin, SourceError, TaskFailed
from archiver.limiter import Admission
from archiver.model import Archive, Copies, Pending
from archiver.ports.queue import TaskQueue
from archiver.ports.source import Source
from archiver.resolver import Resolution, Resolver
from archiver.tasks import Failure, Urgency
from archiver.tree_proof import MayRead


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of a requested archive before a task is created."""

    source: Source
    admission: Admission
    resolution: Resolution
    archive: Archive
    copies: Copies | None

    def hidden(self, may_read: MayRead) -> PartOrigin | None:
        """Return the first part of a stored archive that a client may not read, if any."""
        return self.copies.manifest.first_hidden(may_read) if self.copies else None


class TaskCreator:
    """Creates the tasks of archives that may be built, for the clients that may have them."""

    def __init__(self, *, queue: TaskQueue, resolver: Resolver, builder: Builder) -> None:
        self._queue = queue
        self._resolver = resolver
        self._builder = builder

    async def create(
        self, found: Found, may_read: MayRead, client: str, urgency: Urgency = Urgency.NOW
    ) -> Pending:
        """Create or join the task of an archive that is missing for this client."""
        archive, admission, hidden = found.archive, found.admission, found.hidden(may_read)
        at_host = await self._is_at_host(found.source, archive, admission, may_read)
        failure = Failure.refusal(hidden) if hidden else await self._failure(archive, may_read)
        if failure:
            raise TaskFailed(failure.message, code=failure.code)
        admit = admission.task if urgency is Urgency.NOW else admission.deferred_task
        outcome = await self._queue.enqueue(
            archive, client=client, admit=admit, urgency=urgency, needs_host=at_host
        )
        return Pending(archive=archive, outcome=outcome)

    async def _is_at_host(
        self, source: Source, archive: Archive, admission: Admission, may_read: MayRead
    ) -> bool:
        """Return whether the host has the archive; if not, a stored one of the same tree will do.

        A stored archive that the client may not read does not count. Raises an error if no task
        can succeed now.
        """
        try:
            await self._resolver.require_known(
                source,
                archive.repo,
                archive.node,
                client=admission.client,
                admit=admission.lookup,
            )
        except SourceError:
            relatives = await self._builder.find_relatives(source, archive)
            if all(copies.manifest.first_hidden(may_read) for _, copies in relatives):
                raise
            return False
        return True

    async def _failure(self, archive: Archive, may_read: MayRead) -> Failure | None:
        """Return the reason, as the client may know it, for which a task failed recently.

        If the task goes on after an error in a part that is hidden from the client, it has failed
        for good for this client. Raises EngineUnavailable.
        """
        if failure := self._queue.recent_failure(archive):
            return failure.as_seen_by(may_read)
        task = await self._queue.task(archive) if archive.submodules else None
        if task is None or task.error is None or task.state.terminal:
            return None
        hidden = task.error.first_hidden(may_read)
        return Failure.refusal(hidden) if hidden else None
