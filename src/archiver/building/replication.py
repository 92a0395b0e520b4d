"""Copies a stored archive to the regions that lack it."""

from archiver.errors import ArchiverError
from archiver.model import Archive, Copies
from archiver.ports.queue import Attempt
from archiver.ports.storage import Storage
from archiver.tasks import Phase
from archiver.telemetry import METRICS, log


async def replicate(storage: Storage, archive: Archive, copies: Copies, attempt: Attempt) -> Copies:
    """Return the copies after an attempt to add the missing ones. Failures are logged."""
    regions = set(copies.regions)
    for region in storage.regions:
        if region in regions:
            continue
        attempt.report(Phase.COPYING)
        try:
            await storage.copy(archive, copies, region)
        except ArchiverError as exc:
            METRICS.repairs.labels(region=region, outcome="failed").inc()
            log.warning("copy.failed", region=region, key=archive.key, **exc.log_fields)
        else:
            METRICS.repairs.labels(region=region, outcome="succeeded").inc()
            log.info("copy.succeeded", region=region, key=archive.key)
            regions.add(region)
    return Copies(
        manifest=copies.manifest,
        regions=tuple(region for region in storage.regions if region in regions),
    )
