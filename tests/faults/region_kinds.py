"""Faults of regions: of the S3 servers themselves, and of their answers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.faults.fleet import Fleet
from tests.faults.kinds import REGION, Catalogue, Kind, Scene
from tests.faults.moments import RANDOM
from tests.faults.region import S3Region, is_archive, is_completion, is_manifest
from tests.parts.s3_fault_proxy import Fault
from tests.system.stack import REGIONS

ALL = "all"

Applies = Callable[[str, str], bool]


def _regions(scene: Scene) -> list[S3Region]:
    return _of(scene.fleet, scene.target)


def _of(fleet: Fleet, target: str) -> list[S3Region]:
    return list(fleet.regions.values()) if target == ALL else [fleet.regions[target]]


@contextmanager
def _kill(scene: Scene) -> Iterator[str]:
    for region in _regions(scene):
        region.program.kill()
    yield scene.target
    for region in _regions(scene):
        region.program.up()


@contextmanager
def _stop(scene: Scene) -> Iterator[str]:
    for region in _regions(scene):
        region.program.terminate()
    yield scene.target
    for region in _regions(scene):
        region.program.up()


@contextmanager
def _freeze(scene: Scene) -> Iterator[str]:
    with ExitStack() as stack:
        for region in _regions(scene):
            stack.enter_context(region.program.frozen())
        yield scene.target


def _answering(fault: Fault, applies: Applies) -> Callable[[Scene], Iterator[str]]:
    def answer(scene: Scene) -> Iterator[str]:
        with ExitStack() as stack:
            hits: list[str] = []

            def is_hit(method: str, target: str) -> bool:
                hit = applies(method, target)
                hits.extend([f"{method} {target}"] * hit)
                return hit

            for region in _regions(scene):
                stack.enter_context(region.misbehaving(fault, is_hit))
            yield scene.target
            scene.hits.append(len(set(hits)))

    return answer


def _always(_method: str, _target: str) -> bool:
    return True


def _writes(method: str, target: str) -> bool:
    return method in {"PUT", "POST"} and (is_archive(target) or is_manifest(target))


def _uploads(method: str, target: str) -> bool:
    return method in {"PUT", "POST"} and is_archive(target)


def _parts(method: str, target: str) -> bool:
    return method == "PUT" and is_archive(target)


def _manifest_writes(method: str, target: str) -> bool:
    return method == "PUT" and is_manifest(target)


def _reads(method: str, target: str) -> bool:
    return method == "GET" and is_archive(target)


REGION_KINDS = Catalogue()
_TARGETS = (*REGIONS, ALL)
_POINTS = ("upload", "commit", RANDOM)

for _name, _begin in (("killed", _kill), ("stopped", _stop), ("frozen", _freeze)):
    REGION_KINDS.add(
        Kind(
            name=f"region-{_name}",
            part=REGION,
            begin=_begin,
            targets=_TARGETS,
            moments=_POINTS,
            needs=("large",),
        )
    )

for _name, _fault, _applies, _moments, _needs in (
    ("500", Fault.FAIL, _always, _POINTS, ()),
    ("503-slow-down", Fault.REFUSE, _always, _POINTS, ()),
    ("403-on-writes", Fault.FORBID, _writes, _POINTS, ()),
    ("403-expired-credentials", Fault.EXPIRE, _always, _POINTS, ()),
    ("403-clock-skew", Fault.SKEW, _always, _POINTS, ()),
    ("403-glacier-on-get", Fault.ARCHIVE, _reads, (RANDOM,), ("conversion",)),
    ("reset-in-mid-part", Fault.RESET, _parts, ("fetch", RANDOM), ("large",)),
    ("reset", Fault.RESET, _always, _POINTS, ()),
    ("cut", Fault.CUT, _always, _POINTS, ()),
    ("silent", Fault.STALL, _uploads, ("upload", RANDOM), ()),
    ("412-after-the-write", Fault.EXISTS, _manifest_writes, ("stream", RANDOM), ()),
    ("409-on-create-only", Fault.CONFLICT, _manifest_writes, ("stream", RANDOM), ()),
    ("501-on-create-only", Fault.UNSUPPORTED, _manifest_writes, ("stream", RANDOM), ()),
    ("manifest-written-answer-lost", Fault.MUTE, _manifest_writes, ("stream", RANDOM), ()),
    ("200-with-an-error", Fault.LATE_ERROR, is_completion, ("stream", RANDOM), ("large",)),
    ("completed-answer-lost", Fault.MUTE, is_completion, ("stream", RANDOM), ("large",)),
    ("answers-lost", Fault.MUTE, _writes, _POINTS, ()),
):
    REGION_KINDS.add(
        Kind(
            name=f"region-{_name}",
            part=REGION,
            begin=contextmanager(_answering(_fault, _applies)),
            targets=_TARGETS,
            moments=_moments,
            needs=_needs,
        )
    )
