"""Chooses the region from which a client downloads."""

from collections.abc import Collection, Mapping, Sequence

from archiver.model import Region


class RegionChoice:
    """Precomputed orders of regions, for each preferred region and each client's own region."""

    def __init__(
        self, *, regions: Sequence[Region], nearest: Mapping[Region, Sequence[Region]]
    ) -> None:
        self._orders = {
            (preferred, own): _order(preferred, own, regions, nearest)
            for preferred in (None, *regions)
            for own in (None, *regions)
        }

    def choose(
        self, having: Collection[Region], *, preferred: Region | None, own: Region | None
    ) -> Region | None:
        """Return the best region of *having*; None if none of them is configured.

        The order: the *preferred* region, the client's *own* region, the regions near its own, the
        regions near the preferred one, all others in the configured order. Regions that are not
        configured are ignored.
        """
        order = self._orders.get((preferred, own)) or self._order_of_configured(preferred, own)
        return next((region for region in order if region in having), None)

    def _order_of_configured(
        self, preferred: Region | None, own: Region | None
    ) -> Sequence[Region]:
        configured_preferred = preferred if (preferred, None) in self._orders else None
        configured_own = own if (None, own) in self._orders else None
        return self._orders[configured_preferred, configured_own]


def _order(
    preferred: Region | None,
    own: Region | None,
    regions: Sequence[Region],
    nearest: Mapping[Region, Sequence[Region]],
) -> Sequence[Region]:
    first = [region for region in (preferred, own) if region]
    near = [neighbor for region in reversed(first) for neighbor in nearest.get(region, ())]
    return tuple(dict.fromkeys(r for r in (*first, *near, *regions) if r in regions))
