"""Asks hosts for the branches of prewarm rules, where no webhook announces pushes."""

from collections import Counter
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from typing import Protocol

from archiver.errors import ArchiverError
from archiver.model import ArchiveRequest, EnqueueOutcome, Pending, Stored
from archiver.ports.schedule import Schedule
from archiver.prewarm.rules import PrewarmRule
from archiver.telemetry import METRICS, describe, log
from archiver.tree_proof import MayRead, everything
from archiver.upkeep.periodic import JITTER, Periodic

ORIGIN = "poll"
REFUSED = "refused"


class Prewarm(Protocol):
    """``service.Archiver.prewarm``."""

    def __call__(
        self, request: ArchiveRequest, *, may_read: MayRead, client: str, limited: bool
    ) -> Awaitable[Stored | Pending]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PollReport:
    """How many archives of a rule are stored or have a task, and how many branches failed."""

    stored: int = 0
    tasks: int = 0
    refused: int = 0

    @property
    def complete(self) -> bool:
        return not self.refused


class Poller:
    """Polls the branches of one rule, one process of the fleet at a time.

    Each lookup takes its turn at the host, among those of clients.
    """

    def __init__(self, *, rule: PrewarmRule, prewarm: Prewarm, schedule: Schedule) -> None:
        if rule.poll is None:
            raise ValueError("the rule is not one to poll")
        self._rule = rule
        self._prewarm = prewarm
        # A pause is up to JITTER shorter, and two polls are never closer than the rule says.
        interval = rule.poll / (1 - JITTER)
        self._periodic = Periodic(schedule=schedule, work=f"poll_{rule.name}", interval=interval)

    async def keep_polling(self) -> None:
        """Poll at the interval of the rule, until cancelled."""
        await self._periodic.keep_running(self.poll)

    async def poll(self) -> PollReport:
        """Have the archives built that the branches name now, and are not stored."""
        outcomes: Counter[str] = Counter()
        refused: set[tuple[str, str]] = set()
        for request in self._rule.polled():
            branch = (request.repo, request.rev)
            if branch not in refused:
                outcome = await self._request(request)
                outcomes[outcome] += 1
                METRICS.prewarmed.labels(origin=ORIGIN, outcome=outcome).inc()
                if outcome == REFUSED:  # its other archives would be refused as well
                    refused.add(branch)
        report = PollReport(
            stored=outcomes["hit"],
            tasks=outcomes[EnqueueOutcome.CREATED] + outcomes[EnqueueOutcome.JOINED],
            refused=len(refused),
        )
        log.debug("rule.polled", rule=self._rule.name, **asdict(report))
        return report

    async def _request(self, request: ArchiveRequest) -> str:
        client = f"poll:{self._rule.name}"
        try:
            found = await self._prewarm(request, may_read=everything, client=client, limited=False)
        except ArchiverError as exc:
            log.warning(
                "rule.refused",
                rule=self._rule.name,
                source=request.source,
                repo=request.repo,
                rev=request.rev,
                cause=describe(exc),
                **exc.log_fields,
            )
            return REFUSED
        return "hit" if isinstance(found, Stored) else str(found.outcome)
