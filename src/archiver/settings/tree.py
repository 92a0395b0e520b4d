"""The tree of all settings, and how it is read from TOML and the environment."""

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as PydanticSettingsError

from archiver.settings.engine import EngineSettings
from archiver.settings.section import SettingsError
from archiver.settings.sections import LogSettings, RegionSettings, WorkerSettings
from archiver.settings.server import ServerSettings
from archiver.settings.source import SourceSettings
from archiver.settings.variables import (
    DELIMITER,
    PREFIX,
    likeliest,
    path_of,
    setting_variables,
    unknown_variables,
)

HGMO_URL_TEMPLATE = "https://hg.mozilla.org/{repo}/archive/{rev}.{suffix}/{subdir}"
DEFAULT_CONFIG = Path("archiver.toml")
RESERVED_SOURCES = frozenset({"status"})

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def _is_mozilla(url: str) -> bool:
    try:
        return urlsplit(url).hostname == "hg.mozilla.org"
    except ValueError:
        return False


def _default_data_dir() -> Path:
    """Return a folder of this user, or, for a service that has no home directory, the system's."""
    if home := os.environ.get("XDG_DATA_HOME"):
        return Path(home) / "archiver"
    try:
        return Path.home() / ".local" / "share" / "archiver"
    except RuntimeError:
        return Path("/var/lib/archiver")


class Settings(BaseSettings):
    """All settings. Environment: ``ARCHIVER_`` and the path, ``__`` between its parts."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        frozen=True,
    )

    server: ServerSettings = ServerSettings()
    engine: EngineSettings = EngineSettings()
    regions: dict[str, RegionSettings] = Field(
        default={}, description="In order of preference; the first is the primary one."
    )
    sources: dict[str, SourceSettings] = Field(default={})
    worker: WorkerSettings = WorkerSettings()
    log: LogSettings = LogSettings()
    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="Folder of the servers that `archiver serve` embeds.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (env_settings, _OriginalNames(settings_cls), init_settings)

    @model_validator(mode="before")
    @classmethod
    def _know_hosts(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Point `hgmo`, the source if no other is named, at hg.mozilla.org.

        That host has served nothing but zip since 2019.
        """
        sources = data.get("sources", {"hgmo": {}})
        hgmo = sources.get("hgmo") if isinstance(sources, dict) else None
        if not isinstance(hgmo, dict):
            return data  # it is absent, or no table, which is refused by name
        hgmo = {"url_template": HGMO_URL_TEMPLATE, **hgmo}
        if _is_mozilla(str(hgmo["url_template"])):
            hgmo.setdefault("fetch_suffix", "zip")
        return {**data, "sources": {**sources, "hgmo": hgmo}}

    @model_validator(mode="after")
    def _a_source_is_named(self) -> Self:
        if not self.sources:
            raise ValueError("sources: is empty; name a source, or leave it out to have `hgmo`")
        return self

    @model_validator(mode="after")
    def _names_are_names(self) -> Self:
        for name in (*self.regions, *self.sources):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a region or a source")
        if reserved := RESERVED_SOURCES.intersection(self.sources):
            raise ValueError(f"sources: {', '.join(reserved)} is a word of the interface")
        return self

    @model_validator(mode="after")
    def _neighbours_are_regions(self) -> Self:
        for name, region in self.regions.items():
            if unknown := set(region.nearest).difference(self.regions):
                raise ValueError(f"regions.{name}.nearest: {min(unknown)!r} is no region here")
        return self

    @model_validator(mode="after")
    def _nobody_is_near_two_regions(self) -> Self:
        for kind in ("networks", "aws_regions", "google_regions"):
            owners: dict[str, str] = {}
            for name, region in self.regions.items():
                for value in getattr(region, kind):
                    if (owner := owners.setdefault(value, name)) != name:
                        raise ValueError(f"regions.{name}.{kind}: {value} is near {owner} too")
        return self


class _OriginalNames(PydanticBaseSettingsSource):
    """The two environment variables of the original service, which its operators know."""

    def __call__(self) -> dict[str, Any]:
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
                    "ARCHIVER_S3_BUCKETS: must be a JSON object of region to bucket"
                ) from None
        return data

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return None, field_name, False


def find_config(config: Path | None = None) -> Path | None:
    """Return the TOML file with the settings, if any.

    It is *config*, else what ``ARCHIVER_CONFIG`` names, else ``archiver.toml`` here.
    """
    if config:
        return config
    if named := os.environ.get("ARCHIVER_CONFIG"):
        return Path(named)
    return DEFAULT_CONFIG if os.path.lexists(DEFAULT_CONFIG) else None


def load(config: Path | None = None) -> Settings:
    """Return the settings of the environment and, beneath it, of the TOML file, if any.

    Raises:
        SettingsError: The file cannot be read, or a setting is wrong, or there is none of a name.
    """
    if unknown := "\n".join(unknown_variables(Settings)):
        raise SettingsError(unknown)
    path = find_config(config)
    try:
        return Settings(**(tomllib.loads(path.read_text()) if path else {}))
    except OSError as exc:
        raise SettingsError(f"{path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{path}: not TOML: {exc}") from exc
    except (ValidationError, PydanticSettingsError) as exc:
        raise SettingsError(_explain(exc)) from None


def require_outside_world(settings: Settings) -> None:
    """Return if an engine and regions are named, as every process but `archiver serve` needs them.

    Raises:
        SettingsError: They are not.
    """
    require_engine(settings)
    require_regions(settings)


def require_engine(settings: Settings) -> None:
    """Return if an engine is named. Raises SettingsError."""
    if not settings.engine.servers:
        raise SettingsError("engine.url: is not set, and only `archiver serve` embeds an engine")


def require_regions(settings: Settings) -> None:
    """Return if regions are named, so that the archives can be found. Raises SettingsError."""
    if not settings.regions:
        raise SettingsError("regions: none is set, and only `archiver serve` embeds any")


def _explain(exc: ValidationError | PydanticSettingsError) -> str:
    """Name each wrong setting and why; never its value, which may be a secret."""
    if isinstance(exc, PydanticSettingsError):
        return _explain_json(exc)
    return "\n".join(map(_reason, exc.errors(include_input=False, include_url=False)))


def _reason(error: ErrorDetails) -> str:
    path = [str(part) for part in error["loc"]]
    match error["type"]:
        case "extra_forbidden":
            likely = ".".join(likeliest(Settings, path))
            text = f"no such setting; {likely} is one" if likely else "no such setting"
        case "value_error":
            text = str(error["ctx"]["error"])
        case _:
            text = error["msg"]
    return ": ".join(filter(None, (".".join(path), text)))


def _explain_json(exc: PydanticSettingsError) -> str:
    """Name the variables of the table, or the one setting, that was to be read as JSON."""
    table = str(exc).partition('"')[2].partition('"')[0]
    names = [name for name in setting_variables() if path_of(name)[0] == table]
    return f"{' or '.join(names) or table}: must be JSON"
