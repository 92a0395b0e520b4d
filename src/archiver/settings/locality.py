"""Which region is near a client, according to the settings."""

from collections.abc import Iterator, Mapping

from archiver.locality.cloud_ranges import (
    CloudRanges,
    RangesFile,
    UnreadableRanges,
    parse_aws,
    parse_google,
)
from archiver.model import Region
from archiver.settings.section import SettingsError
from archiver.settings.tree import Settings


def client_networks(settings: Settings) -> Iterator[tuple[str, Region]]:
    """Yield each network of the settings with the region that it is near."""
    for name, region in settings.regions.items():
        for network in region.networks:
            yield network, Region(name)


def nearest_regions(settings: Settings) -> dict[Region, tuple[Region, ...]]:
    return {
        Region(name): tuple(map(Region, region.nearest))
        for name, region in settings.regions.items()
    }


def cloud_ranges_files(settings: Settings) -> list[RangesFile]:
    """Return the published files of cloud networks that the settings name."""
    server, regions = settings.server, settings.regions
    files = []
    if path := server.aws_ranges:
        own = {name: region.aws_region or name for name, region in regions.items()}
        homes = _homes(own, {name: region.aws_regions for name, region in regions.items()})
        file = RangesFile(setting="server.aws_ranges", path=path, parse=parse_aws, homes=homes)
        files.append(file)
    if path := server.google_ranges:
        own = {name: name for name in regions}
        homes = _homes(own, {name: region.google_regions for name, region in regions.items()})
        file = RangesFile(
            setting="server.google_ranges", path=path, parse=parse_google, homes=homes
        )
        files.append(file)
    return files


def _homes(own: Mapping[str, str], others: Mapping[str, tuple[str, ...]]) -> dict[str, Region]:
    """Return the nearest region for each region of a cloud.

    It is the region that lists it, else the first of that name. Several regions may share a name,
    because all buckets of another S3 server may be signed for one AWS region.
    """
    homes: dict[str, Region] = {}
    for name, listed in others.items():
        for region in listed:
            homes.setdefault(region, Region(name))
    for name, region in own.items():
        homes.setdefault(region, Region(name))
    return homes


def require_cloud_ranges(settings: Settings) -> None:
    try:
        CloudRanges(files=cloud_ranges_files(settings)).read_networks()
    except UnreadableRanges as exc:
        raise SettingsError(str(exc)) from exc
