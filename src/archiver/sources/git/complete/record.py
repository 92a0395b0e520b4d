"""The record that a complete archive carries, so that it can be proven offline."""

from archiver.git_objects import CompleteRecord, RepositoryRecord
from archiver.sources.git.complete.checkout import Checkout, Plan


def record_of(plan: Plan) -> CompleteRecord:
    """Return the record of all repositories, each after the one that contains it."""
    return CompleteRecord(repositories=tuple(_repository(each) for each in plan.walk()))


def _repository(checkout: Checkout) -> RepositoryRecord:
    snapshot = checkout.snapshot
    submodules = snapshot.listing.submodules.items()
    return RepositoryRecord(
        path=checkout.path.encode(),
        commit=snapshot.record.commit,
        trees=snapshot.record.trees,
        submodules=tuple(sorted(item for item in submodules if item[0] not in checkout.parts)),
        lfs=tuple(checkout.lfs.gaps) if checkout.lfs else (),
        pointers=tuple(checkout.lfs.unusual) if checkout.lfs else (),
    )
