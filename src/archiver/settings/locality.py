"""Where clients are, as the settings tell it."""

from collections.abc import Iterator, Mapping

from archiver.locality.cloud_ranges import (
    CloudRanges,
    RangesFile,
    UnreadableRanges,
    read_aws,
    read_google,
)
from archiver.model import Region
from archiver.settings.section import SettingsError
from archiver.settings.tree import Settings


def networks(settings: Settings) -> Iterator[tuple[str, Region]]:
    """Yield each network that is near a region by the settings' own word."""
    for name, region in settings.regions.items():
        for network in region.networks:
            yield network, Region(name)


def nearest(settings: Settings) -> dict[Region, tuple[Region, ...]]:
    """Return what each region names to be near it."""
    return {
        Region(name): tuple(map(Region, region.nearest))
        for name, region in settings.regions.items()
    }


def ranges_files(settings: Settings) -> list[RangesFile]:
    """Return the files that clouds publish, as far as the settings say where they are."""
    server, regions = settings.server, settings.regions
    files = []
    if server.aws_ranges:
        own = {name: region.aws_region or name for name, region in regions.items()}
        others = {name: region.aws_regions for name, region in regions.items()}
        files.append(
            RangesFile(
                setting="server.aws_ranges",
                path=server.aws_ranges,
                read=read_aws,
                homes=_homes(own, others),
            )
        )
    if server.google_ranges:
        others = {name: region.google_regions for name, region in regions.items()}
        files.append(
            RangesFile(
                setting="server.google_ranges",
                path=server.google_ranges,
                read=read_google,
                homes=_homes({name: name for name in regions}, others),
            )
        )
    return files


def _homes(own: Mapping[str, str], others: Mapping[str, tuple[str, ...]]) -> dict[str, Region]:
    """Return our region near each of a cloud's: what lists it, else the first that has its name.

    Buckets that are not AWS's may well be signed for one AWS region, all of them.
    """
    homes: dict[str, Region] = {}
    for name, listed in others.items():
        for region in listed:
            homes.setdefault(region, Region(name))
    for name, region in own.items():
        homes.setdefault(region, Region(name))
    return homes


def require_ranges(settings: Settings) -> None:
    """Return if the files that clouds publish can be read.

    Raises:
        SettingsError: One cannot.
    """
    try:
        CloudRanges(files=ranges_files(settings)).read()
    except UnreadableRanges as exc:
        raise SettingsError(str(exc)) from exc
