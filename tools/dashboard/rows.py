"""What the dashboard shows, row by row."""

from collections.abc import Callable, Iterator, Mapping

from archiver.telemetry import METRICS as M
from tools.dashboard.panels import Chart, number, panel
from tools.dashboard.queries import added, age, quantile, rate, seen, series

HITS = {"outcome": "hit"}
CLIENTS = {"lane": "~hi|mid|parked"}
FAR_TOO_OLD_S = 600


def overview() -> Iterator[Chart]:
    none_is_bad = ((None, "red"), (1, "green"))
    some_is_bad = ((None, "green"), (1, "orange"))
    yield number("Hits", "reqps", rate(M.requests, **HITS), (None, "blue"))
    share = f"{rate(M.requests, **HITS)} / {rate(M.requests)}"
    yield number("Share of hits", "percentunit", share, (None, "blue"))
    yield number("Oldest waiting task", "s", seen(M.queue_oldest_age, **CLIENTS), (None, "green"),
                 (FAR_TOO_OLD_S / 2, "orange"), (FAR_TOO_OLD_S, "red"))  # fmt: skip
    yield number("Active workers", "none", seen(M.workers, state="active"), *none_is_bad)
    yield number("Engine works", "none", seen(M.engine_works), *none_is_bad)
    writable = f"sum ({seen(M.region_writable, 'region')})"
    yield number("Regions writable", "none", writable, *none_is_bad)
    opened = f"count ({seen(M.breaker_state, 'kind,name')} > 0) or vector(0)"
    yield number("Breakers not closed", "none", opened, *some_is_bad)
    lacking = f"sum ({seen(M.copies_lacking, 'region')})"
    yield number("Copies lacking", "none", lacking, *some_is_bad)


def requests() -> Iterator[Chart]:
    outcomes = (rate(M.requests, "outcome"), "{{outcome}}")
    yield panel("Requests for archives", "reqps", outcomes, stacked=True)
    yield panel(
        "Time to respond, without requests that wait",
        "s",
        (quantile(0.5, M.http_requests, code="302"), "redirects, half"),
        (quantile(0.99, M.http_requests, code="302"), "redirects, 99 %"),
        (quantile(0.99, M.http_requests, code="202"), "new tasks, 99 %"),
    )
    yield panel("Responses", "reqps", (rate(M.http_requests, "code"), "{{code}}"), stacked=True)
    yield panel(
        "Clients that wait",
        "none",
        (added(M.waiters), "requests"),
        (added(M.event_streams), "event streams"),
    )
    yield panel(
        "Limits reached",
        "ops",
        (rate(M.refusals, "code"), "{{code}}"),
        (rate(M.connections_closed), "connections closed"),
    )
    yield panel("Lookups of copies", "ops", (rate(M.index_lookups, "level"), "{{level}}"))


def queue() -> Iterator[Chart]:
    waiting = seen(M.queue_tasks, "source,lane", state="waiting")
    begun = seen(M.queue_tasks, "source,lane", state="begun")
    yield panel("Tasks that wait", "none", (waiting, "{{source}} {{lane}}"), stacked=True)
    oldest = (seen(M.queue_oldest_age, "source,lane"), "{{source}} {{lane}}")
    yield panel("Age of the oldest waiting task", "s", oldest)
    yield panel("Tasks that have begun", "none", (begun, "{{source}} {{lane}}"), stacked=True)
    yield panel(
        "Prewarming",
        "ops",
        (rate(M.prewarmed, "origin,outcome"), "{{origin}} {{outcome}}"),
        third=False,
    )
    deliveries = (rate(M.hook_deliveries, "hook,outcome"), "{{hook}} {{outcome}}")
    yield panel("Deliveries of webhooks", "ops", deliveries, third=False)


def builds() -> Iterator[Chart]:
    yield panel("Attempts", "ops", (rate(M.attempts, "outcome"), "{{outcome}}"), stacked=True)
    phases = (added(M.attempts_in_phase, "phase"), "{{phase}}")
    yield panel("Running attempts by phase", "none", phases, stacked=True)
    yield panel(
        "Running attempts by source",
        "none",
        (added(M.attempts_running, "source"), "{{source}}"),
        stacked=True,
    )
    built = {"outcome": "succeeded"}
    yield panel(
        "Duration of attempts that succeed",
        "s",
        (quantile(0.5, M.attempt_duration, "source", **built), "{{source}}, half"),
        (quantile(0.95, M.attempt_duration, "source", **built), "{{source}}, 95 %"),
    )
    errors = (rate(M.source_errors, "source,code"), "{{source}} {{code}}")
    yield panel("Errors of hosts", "ops", errors)
    yield panel(
        "Conversions",
        "ops",
        (rate(M.conversions, "suffix,outcome"), "{{suffix}} {{outcome}}"),
        (added(M.conversions_running), "running now"),
    )


def hosts() -> Iterator[Chart]:
    states = (seen(M.breaker_state, "kind,name"), "{{kind}} {{name}}")
    yield panel("Breakers: 0 closed, 1 half-open, 2 open", "none", states)
    openings = (rate(M.breaker_openings, "kind,name"), "{{kind}} {{name}}")
    yield panel("Openings of breakers", "ops", openings)
    lookups = (rate(M.resolves, "source,outcome"), "{{source}} {{outcome}}")
    yield panel("Lookups at hosts", "ops", lookups)
    yield panel(
        "Bytes received",
        "Bps",
        (rate(M.source_bytes, "source"), "{{source}} archives"),
        (rate(M.mirror_fetched_bytes, "source"), "{{source}} packs"),
        (rate(M.lfs_fetched_bytes, "source"), "{{source}} LFS files"),
        stacked=True,
    )
    yield panel(
        "Uses of mirrors and LFS files",
        "ops",
        (rate(M.mirror_uses, "outcome"), "mirror {{outcome}}"),
        (rate(M.lfs_uses, "outcome"), "LFS {{outcome}}"),
    )
    yield panel(
        "Mirrors and LFS files on disk",
        "bytes",
        (seen(M.mirror_bytes, "instance"), "{{instance}} mirrors"),
        (seen(M.lfs_bytes, "instance"), "{{instance}} LFS files"),
    )
    yield panel(
        "Removals of mirrors and LFS files",
        "ops",
        (rate(M.mirror_removals, "reason"), "mirror {{reason}}"),
        (rate(M.lfs_removals, "reason"), "LFS {{reason}}"),
        (rate(M.mirror_repacks), "repacks"),
    )


def regions() -> Iterator[Chart]:
    yield panel(
        "Regions: 1 works, 0 does not",
        "none",
        (seen(M.region_reachable, "region"), "{{region}} answers"),
        (seen(M.region_writable, "region"), "{{region}} takes writes"),
    )
    yield panel("Bytes uploaded", "Bps", (rate(M.upload_bytes, "region"), "{{region}}"))
    uploads = (rate(M.uploads, "region,outcome"), "{{region}} {{outcome}}")
    yield panel("Uploads", "ops", uploads)
    yield panel("Copies lacking", "none", (seen(M.copies_lacking, "region"), "{{region}}"))
    repairs = (rate(M.repairs, "region,outcome"), "{{region}} {{outcome}}")
    yield panel("Copies made from another region", "ops", repairs)
    yield panel("Copies checked", "ops", (rate(M.checks, "outcome"), "{{outcome}}"))
    archives = (seen(M.archives_stored, "region"), "{{region}}")
    yield panel("Archives stored, at the last sweep", "none", archives, third=False)
    stored = (seen(M.stored_bytes, "region"), "{{region}}")
    yield panel("Bytes stored, at the last sweep", "bytes", stored, third=False)


def fleet() -> Iterator[Chart]:
    yield panel("Workers", "none", (seen(M.workers, "state"), "{{state}}"), stacked=True)
    connected = (series(M.engine_connected), "{{process}} {{instance}}")
    yield panel("Engine: 1 connected, 0 not", "none", connected)
    fullness = (seen(M.engine_fullness, "place"), "{{place}}")
    yield panel("Fullness of the engine", "percentunit", fullness)
    versions = (f"count by (version) ({series(M.build_info)})", "{{version}}")
    yield panel("Processes by version", "none", versions)
    yield panel(
        "Values that could not be read",
        "ops",
        (rate(M.unreadable, "place"), "{{place}}"),
        (seen(M.access_unreadable), "rules of access (1: previous ones are used)"),
    )
    yield panel(
        "Since the last sweep and the last run of gc",
        "s",
        (age(M.sweep_finished), "sweep"),
        (age(M.gc_finished), "gc"),
    )


def retention() -> Iterator[Chart]:
    expired = (rate(M.expired, "source,reason"), "{{source}} {{reason}}")
    yield panel("Archives that expired", "ops", expired)
    yield panel(
        "Bytes removed",
        "Bps",
        (rate(M.expired_bytes), "by gc"),
        (rate(M.sweep_removed_bytes), "by sweeps"),
    )
    yield panel(
        "Removals by sweeps, and archives built again with other bytes",
        "ops",
        (rate(M.sweep_removals, "kind"), "{{kind}}"),
        (rate(M.superseded, "source"), "superseded {{source}}"),
    )


ROWS: Mapping[str, Callable[[], Iterator[Chart]]] = {
    "Overview": overview,
    "Requests": requests,
    "Queue": queue,
    "Builds": builds,
    "Hosts and mirrors": hosts,
    "Regions": regions,
    "Fleet and engine": fleet,
    "Retention": retention,
}
