"""An attempt whose current step is counted in a metric."""

from typing import Self

from archiver.ports.queue import Attempt
from archiver.tasks import Phase
from archiver.telemetry import METRICS


class CountedAttempt:
    """Implements ``Attempt`` for *attempt*, and counts its phase until it is left."""

    def __init__(self, attempt: Attempt) -> None:
        self.id = attempt.id
        self.prove_lease = attempt.prove_lease
        self._attempt = attempt
        self._phase = Phase.CONNECTING

    def __enter__(self) -> Self:
        METRICS.attempts_in_phase.labels(phase=self._phase).inc()
        return self

    def __exit__(self, *_exc: object) -> None:
        METRICS.attempts_in_phase.labels(phase=self._phase).dec()

    def report(self, phase: Phase, bytes_done: int = 0) -> None:
        if phase is not self._phase:
            METRICS.attempts_in_phase.labels(phase=self._phase).dec()
            METRICS.attempts_in_phase.labels(phase=phase).inc()
            self._phase = phase
        self._attempt.report(phase, bytes_done)
