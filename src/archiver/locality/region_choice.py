"""Chooses the region from which a client downloads."""

from collections.abc import Callable, Collection, Mapping, Sequence

from archiver.model import Region


class RegionChoice:
    """Chooses among the configured *regions*, of which *nearest* lists the ones near each.

    A region that it *avoids* at the moment is chosen only if there is no other.
    """

    def __init__(
        self,
        *,
        regions: Sequence[Region],
        nearest: Mapping[Region, Sequence[Region]],
        avoids: Callable[[Region], bool] = lambda _: False,
    ) -> None:
        self._regions = regions
        self._nearest = nearest
        self._avoids = avoids

    def choose(
        self, having: Collection[Region], *, preferred: Region | None, own: Region | None
    ) -> Region | None:
        """Return the best region of *having*; None if none of them is configured.

        The order: the *preferred* region, the client's *own* region, the regions near its own, the
        regions near the preferred one, all others in the configured order. Regions that are not
        configured are ignored.
        """
        first = [region for region in (preferred, own) if region and region in self._regions]
        near = [other for region in reversed(first) for other in self._nearest.get(region, ())]
        order = (*first, *near, *self._regions)
        usable = [region for region in order if region in having and region in self._regions]
        return next((r for r in usable if not self._avoids(r)), next(iter(usable), None))
