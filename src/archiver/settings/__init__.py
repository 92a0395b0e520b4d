"""The settings: one frozen tree, loaded once from TOML and the environment."""

from archiver.settings.engine import EngineSettings
from archiver.settings.load import (
    DEFAULT_CONFIG,
    find_config,
    load,
    require_engine,
    require_outside_world,
    require_regions,
)
from archiver.settings.locality import nearest, networks, ranges_files, require_ranges
from archiver.settings.region import RegionSettings
from archiver.settings.section import SettingsError
from archiver.settings.server import ServerSettings
from archiver.settings.source import SourceSettings
from archiver.settings.tree import HGMO_URL_TEMPLATE, Settings
from archiver.settings.variables import setting_variables

__all__ = [
    "DEFAULT_CONFIG",
    "HGMO_URL_TEMPLATE",
    "EngineSettings",
    "RegionSettings",
    "ServerSettings",
    "Settings",
    "SettingsError",
    "SourceSettings",
    "find_config",
    "load",
    "nearest",
    "networks",
    "ranges_files",
    "require_engine",
    "require_outside_world",
    "require_ranges",
    "require_regions",
    "setting_variables",
]
