"""The settings: one frozen tree, loaded once from TOML and the environment."""

from archiver.settings.access import TokenSettings
from archiver.settings.access_policy import access_policy, access_warnings, policy_file
from archiver.settings.engine import EngineSettings
from archiver.settings.git import find_supported_git, require_git, serves_git
from archiver.settings.load import (
    DEFAULT_CONFIG,
    find_config,
    load,
    require_engine,
    require_hook_secrets,
    require_outside_world,
    require_regions,
    require_tokens,
    setting_variables,
)
from archiver.settings.locality import (
    client_networks,
    cloud_ranges_files,
    nearest_regions,
    require_cloud_ranges,
)
from archiver.settings.prewarm import HookSettings, PrewarmSettings
from archiver.settings.region import RegionSettings
from archiver.settings.retention import RetentionRuleSettings
from archiver.settings.retention_report import retention_summary, retention_warnings
from archiver.settings.section import SettingsError
from archiver.settings.source import SourceSettings
from archiver.settings.tree import Settings, is_setting_name

__all__ = [
    "DEFAULT_CONFIG",
    "EngineSettings",
    "HookSettings",
    "PrewarmSettings",
    "RegionSettings",
    "RetentionRuleSettings",
    "Settings",
    "SettingsError",
    "SourceSettings",
    "TokenSettings",
    "access_policy",
    "access_warnings",
    "client_networks",
    "cloud_ranges_files",
    "find_config",
    "find_supported_git",
    "is_setting_name",
    "load",
    "nearest_regions",
    "policy_file",
    "require_cloud_ranges",
    "require_engine",
    "require_git",
    "require_hook_secrets",
    "require_outside_world",
    "require_regions",
    "require_tokens",
    "retention_summary",
    "retention_warnings",
    "serves_git",
    "setting_variables",
]
