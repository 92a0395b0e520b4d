"""Whether workers run, whether they can write, and whether their releases differ."""

from collections.abc import Iterator, Sequence

from archiver.diagnosis.finding import Finding, failure, warning, well
from archiver.ports.queue import WorkerReport


def examine_workers(reports: Sequence[WorkerReport], *, version: str) -> Iterator[Finding]:
    """Yield the findings about the workers that answer. *version* is that of this program."""
    if not reports:
        found = "no worker answers, so nothing is built"
        action = "start a worker: run `archiver worker` on at least one machine"
        yield failure("workers", found, action)
        return
    draining = sum(report.draining is True for report in reports)
    if draining == len(reports):
        found = "every worker drains, so nothing new is built"
        yield failure("workers", found, "start workers")
    else:
        drains = f", {draining} of them drain" if draining else ""
        yield well("workers", f"{_count(reports)}{drains}")
    yield _versions(reports, version)
    for region, names in sorted(_unwritable(reports).items()):
        found = f"some workers cannot write to {region}: {', '.join(names)}"
        action = f"run `archiver doctor` there, and look at region.{region}"
        yield warning("workers.regions", found, action)


def _count(reports: Sequence[WorkerReport]) -> str:
    return "one worker answers" if len(reports) == 1 else f"{len(reports)} workers answer"


def _versions(reports: Sequence[WorkerReport], version: str) -> Finding:
    others = sorted({report.version or "unknown" for report in reports} - {version})
    if others:
        found = f"workers are of version {', '.join(others)}, and this program of {version}"
        action = "finish the upgrade of all processes: see docs/how-to/upgrade.md"
        return warning("workers.versions", found, action)
    return well("workers.versions", f"{version}, like this program")


def _unwritable(reports: Sequence[WorkerReport]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for report in reports:
        for region, reason in report.regions.items():
            if reason:
                found.setdefault(region, []).append(report.name)
    return found
