"""The tree of all settings, from TOML and the environment."""

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from archiver.settings.access import AccessSettings, TokenSettings
from archiver.settings.engine import EngineSettings
from archiver.settings.housekeeping import HousekeepingSettings
from archiver.settings.limits import LimitsSettings
from archiver.settings.prewarm import HookSettings, PrewarmSettings
from archiver.settings.processes import LogSettings, ServerSettings, WorkerSettings
from archiver.settings.region import RegionSettings
from archiver.settings.retention import GRACE_MARGIN, RetentionSettings
from archiver.settings.section import SettingsError
from archiver.settings.source import SourceSettings

PREFIX = "ARCHIVER_"
DELIMITER = "__"

HGMO_URL_TEMPLATE = "https://hg.mozilla.org/{repo}/archive/{rev}.{suffix}/{subdir}"
RESERVED_SOURCES = frozenset({"status"})

LEFTOVER_AGE_MIN = timedelta(days=1)

DEADLINES_OF_A_BUILD = 6
"""An attempt lasts for one fetch of its source, or for two if git runs, and as long again while it
converts and while its regions receive. Clocks of servers may differ, too."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def is_setting_name(text: str) -> bool:
    """Return whether *text* may name a region, a source or a token."""
    return _NAME.fullmatch(text) is not None


def _is_mozilla(url: str) -> bool:
    try:
        return urlsplit(url).hostname == "hg.mozilla.org"
    except ValueError:
        return False


def _default_data_dir() -> Path:
    """Return a folder of this user, or of the system if the user has no home directory."""
    if home := os.environ.get("XDG_DATA_HOME"):
        return Path(home) / "archiver"
    try:
        return Path.home() / ".local" / "share" / "archiver"
    except RuntimeError:
        return Path("/var/lib/archiver")


class Settings(BaseSettings):
    """All settings. Environment: ``ARCHIVER_`` and the path, ``__`` between its parts."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter=DELIMITER, extra="forbid", frozen=True
    )

    server: ServerSettings = ServerSettings()
    engine: EngineSettings = EngineSettings()
    regions: dict[str, RegionSettings] = {}
    """In order of preference; the first is the primary one."""
    sources: dict[str, SourceSettings] = {}
    access: AccessSettings = AccessSettings()
    tokens: dict[str, TokenSettings] = {}
    limits: LimitsSettings = LimitsSettings()
    worker: WorkerSettings = WorkerSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    retention: RetentionSettings = RetentionSettings()
    prewarm: dict[str, PrewarmSettings] = {}
    hooks: dict[str, HookSettings] = {}
    log: LogSettings = LogSettings()
    data_dir: Path = Field(default_factory=_default_data_dir)
    """Folder for the data of the servers that `archiver serve` starts, and for `worker.work_dir`
    and `worker.mirror_dir`.
    """

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        original = InitSettingsSource(settings_cls, _read_original_variables())
        return (env_settings, original, init_settings)

    @model_validator(mode="before")
    @classmethod
    def _add_hgmo_defaults(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Point `hgmo`, which is the source if no other is named, to hg.mozilla.org.

        That host has served only zip since 2019.
        """
        sources = data.get("sources", {"hgmo": {}})
        hgmo = sources.get("hgmo") if isinstance(sources, dict) else None
        if not isinstance(hgmo, dict):
            return data  # it is absent, or not a table, which pydantic rejects
        hgmo = {"url_template": HGMO_URL_TEMPLATE, **hgmo}
        if _is_mozilla(str(hgmo["url_template"])):
            hgmo.setdefault("fetch_suffix", "zip")
        return {**data, "sources": {**sources, "hgmo": hgmo}}

    @model_validator(mode="after")
    def _require_valid_names(self) -> Self:
        if not self.sources:
            raise ValueError("sources: is empty; name a source, or remove the table to use `hgmo`")
        for name in (*self.regions, *self.sources, *self.tokens, *self.prewarm, *self.hooks):
            if not is_setting_name(name):
                raise ValueError(
                    f"{name!r} is not a valid name: use at most 63 of a-z, 0-9, _ and -"
                )
        if reserved := RESERVED_SOURCES.intersection(self.sources):
            raise ValueError(f"sources: {', '.join(reserved)} is reserved for the URLs of tasks")
        return self

    @model_validator(mode="after")
    def _require_distinct_tokens(self) -> Self:
        owners: dict[str, str] = {}
        for name, token in self.tokens.items():
            if (owner := owners.setdefault(token.hash, name)) != name:
                raise ValueError(f"tokens.{name}.hash: is also the hash of {owner!r}")
        return self

    @model_validator(mode="after")
    def _require_known_worker_sources(self) -> Self:
        if unknown := set(self.worker.sources).difference(self.sources):
            raise ValueError(f"worker.sources: {min(unknown)!r} is not a configured source")
        return self

    @model_validator(mode="after")
    def _require_known_prewarm_sources(self) -> Self:
        for table, entries in (("prewarm", self.prewarm), ("hooks", self.hooks)):
            for name, entry in entries.items():
                if entry.source not in self.sources:
                    raise ValueError(f"{table}.{name}.source: {entry.source!r} is not configured")
        for name, rule in self.prewarm.items():
            if (rule.submodules or rule.lfs) and self.sources[rule.source].kind != "git":
                raise ValueError(f"prewarm.{name}: submodules and lfs need a source of kind git")
        return self

    @property
    def served_sources(self) -> dict[str, SourceSettings]:
        """The sources whose tasks a worker with these settings claims."""
        names = self.worker.sources or tuple(self.sources)
        return {name: self.sources[name] for name in names}

    @property
    def expiry_grace(self) -> timedelta:
        """How long the bytes of an expired archive stay: no link to them lasts longer."""
        return self.server.presigned_ttl + GRACE_MARGIN

    @property
    def leftover_age(self) -> timedelta:
        """Age of an object without a manifest from which no build can still commit it."""
        longest_s = max(source.deadline_s for source in self.sources.values())
        return max(LEFTOVER_AGE_MIN, DEADLINES_OF_A_BUILD * timedelta(seconds=longest_s))

    @model_validator(mode="after")
    def _require_consistent_regions(self) -> Self:
        for name, region in self.regions.items():
            if unknown := set(region.nearest).difference(self.regions):
                raise ValueError(
                    f"regions.{name}.nearest: {min(unknown)!r} is not a configured region"
                )
        for kind in ("networks", "aws_regions", "google_regions"):
            owners: dict[str, str] = {}
            for name, region in self.regions.items():
                for value in getattr(region, kind):
                    if (owner := owners.setdefault(value, name)) != name:
                        raise ValueError(
                            f"regions.{name}.{kind}: {value} is also listed for {owner}"
                        )
        return self


def _read_original_variables() -> dict[str, Any]:
    """Return the settings in the two environment variables of the original service."""
    data: dict[str, Any] = {}
    if template := os.environ.get("ARCHIVER_HGMO_URL_TEMPLATE"):
        data["sources"] = {"hgmo": {"url_template": template}}
    if buckets := os.environ.get("ARCHIVER_S3_BUCKETS"):
        try:
            data["regions"] = {
                region: {"bucket": bucket} for region, bucket in json.loads(buckets).items()
            }
        except (ValueError, AttributeError):
            raise SettingsError(
                "ARCHIVER_S3_BUCKETS: must be a JSON object that maps regions to buckets"
            ) from None
    return data
