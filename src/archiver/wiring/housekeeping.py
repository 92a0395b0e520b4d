"""Puts together what lets archives expire: the same for workers and for ``archiver gc``."""

from collections.abc import Callable

from archiver.ports.index import Index
from archiver.ports.last_uses import LastUses
from archiver.ports.queue import RepairList, TaskQueue
from archiver.purge import Forgetter
from archiver.settings import Settings
from archiver.storage.regional_storage import RegionalStorage
from archiver.upkeep.expiry import Expirer
from archiver.upkeep.gc import Gc, GcTally


def create_expirer(
    settings: Settings,
    *,
    storage: RegionalStorage,
    index: Index,
    queue: TaskQueue,
    repairs: RepairList,
) -> Expirer:
    return Expirer(
        storage=storage,
        contents=storage.contents,
        forgetter=Forgetter(index=index, queue=queue, repairs=repairs),
        grace=settings.expiry_grace,
    )


def create_gc(
    settings: Settings,
    *,
    storage: RegionalStorage,
    uses: LastUses,
    expirer: Expirer,
    on_progress: Callable[[GcTally], None] = lambda _tally: None,
) -> Gc:
    return Gc(
        storage=storage,
        contents=storage.contents,
        uses=uses,
        expirer=expirer,
        retention=settings.retention.policy,
        on_progress=on_progress,
    )
