"""Chooses the region from which a client downloads."""

from collections.abc import Collection, Mapping, Sequence

from archiver.model import Region


class RegionChoice:
    """Chooses among the configured *regions*, of which *nearest* lists the ones near each."""

    def __init__(
        self, *, regions: Sequence[Region], nearest: Mapping[Region, Sequence[Region]]
    ) -> None:
        self._regions = regions
        self._nearest = nearest

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
        return next((r for r in order if r in having and r in self._regions), None)
