"""Which region is the nearest to whoever asks, of those that have a copy."""

from collections.abc import Collection, Mapping, Sequence

from archiver.model import Region


class RegionChoice:
    """The regions, in the configured order, and for each the order in which others replace it."""

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
        """Return the first region of *having* in this order; None if none of them is configured.

        The *preferred* one; the client's *own*; those that its own names as near, then those that
        the preferred one names; all others as they are configured. A region that is not configured
        counts for nothing.
        """
        order = self._orders.get((preferred, own)) or self._order_of_known(preferred, own)
        return next((region for region in order if region in having), None)

    def _order_of_known(self, preferred: Region | None, own: Region | None) -> Sequence[Region]:
        known_preferred = preferred if (preferred, None) in self._orders else None
        known_own = own if (None, own) in self._orders else None
        return self._orders[known_preferred, known_own]


def _order(
    preferred: Region | None,
    own: Region | None,
    regions: Sequence[Region],
    nearest: Mapping[Region, Sequence[Region]],
) -> Sequence[Region]:
    wished = [region for region in (preferred, own) if region]
    near = [region for asked in reversed(wished) for region in nearest.get(asked, ())]
    return tuple(dict.fromkeys(r for r in (*wished, *near, *regions) if r in regions))
