"""What does a build cost? CPU time per GB and peak memory, for 100 MB, 1 GB and 8 GB."""

from collections import defaultdict
from dataclasses import dataclass
from functools import partial

from benchmarks.inputs import Input
from benchmarks.lab import Host, Lab
from benchmarks.process import usage
from benchmarks.race import Row, Table, race
from tests.system.stack import Process

SIZES = ("100MB", "1GB", "8GB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one build. ``servers_cpu_s`` is the CPU time of both S3 servers."""

    gigabytes: float
    peak_mb: float
    worker_cpu_s: float
    servers_cpu_s: float


def measure(lab: Lab) -> list[Table]:
    archives = {size: lab.inputs.get(size) for size in SIZES}
    costs: dict[str, list[Cost]] = defaultdict(list)

    def build(size: str) -> float:
        with lab.host(archives[size]) as host:
            taken, cost = _build(lab, host, archives[size])
        costs[size].append(cost)
        return taken

    race({size: partial(build, size) for size in SIZES}, rounds=lab.rounds)
    return [_memory(costs), _cpu(costs)]


def _build(lab: Lab, host: Host, archive: Input) -> tuple[float, Cost]:
    """Build once in a new installation, because the peak of a process never goes down."""
    with lab.installation(host) as archiver:
        before, servers_before = usage(archiver.worker), _cpu_s(archiver.servers)
        taken = archiver.store(archive)
        after, servers_after = usage(archiver.worker), _cpu_s(archiver.servers)
    cost = Cost(
        gigabytes=archive.gigabytes,
        peak_mb=after.peak_mb,
        worker_cpu_s=after.cpu_s - before.cpu_s,
        servers_cpu_s=servers_after - servers_before,
    )
    return taken, cost


def _cpu_s(processes: list[Process]) -> float:
    return sum(usage(process).cpu_s for process in processes)


def _memory(costs: dict[str, list[Cost]]) -> Table:
    rows = [
        Row(what=f"{size} archive", samples=[cost.peak_mb for cost in of_size], goal="< 200")
        for size, of_size in costs.items()
    ]
    return Table(title="Peak memory of the worker", unit="MB", rows=rows, digits=0)


def _cpu(costs: dict[str, list[Cost]]) -> Table:
    workers = [
        Row(
            what=f"worker, {size} archive",
            samples=[cost.worker_cpu_s / cost.gigabytes for cost in of_size],
        )
        for size, of_size in costs.items()
    ]
    servers = [
        Row(
            what=f"the two S3 servers, {size} archive",
            samples=[cost.servers_cpu_s / cost.gigabytes for cost in of_size],
        )
        for size, of_size in costs.items()
    ]
    return Table(title="CPU time", unit="s/GB", rows=[*workers, *servers], digits=2)
