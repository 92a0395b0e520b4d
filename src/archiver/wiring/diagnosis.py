"""Puts together the checks of ``archiver doctor``."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from archiver import __version__
from archiver.diagnosis.engine_check import EngineCheck
from archiver.diagnosis.examination import Check
from archiver.diagnosis.machine_check import FolderNeeds, GitCheck, MachineCheck
from archiver.diagnosis.region_check import RegionCheck
from archiver.diagnosis.region_names import RegionNames
from archiver.diagnosis.source_check import Sample, SourceCheck
from archiver.formats.archive_start import suffix_of
from archiver.formats.workspace import SPARE_BYTES
from archiver.jetstream.inspection import Inspection, open_inspection
from archiver.settings import (
    RegionSettings,
    Settings,
    SettingsError,
    SourceSettings,
    find_supported_git,
    serves_git,
)
from archiver.sources.open import open_source
from archiver.sources.reach import reach
from archiver.storage.trial_bucket import S3TrialBucket
from archiver.wiring import adapters

_ROUTE = "check the network between this machine and"


def create_checks(
    settings: Settings, *, builds: bool, samples: Mapping[str, Sequence[Sample]]
) -> Sequence[Check]:
    """Return the checks in the order of the report: of a worker if it *builds*.

    Otherwise they write nothing, as with the rights of a web process. *samples* are by source.
    """
    return [
        *_of_machine(settings, builds=builds),
        _of_engine(settings),
        *(
            _of_region(name, region, settings, builds=builds)
            for name, region in settings.regions.items()
        ),
        *(
            _of_source(name, source, settings, samples.get(name) or _named_samples(name, settings))
            for name, source in settings.sources.items()
        ),
    ]


def _of_machine(settings: Settings, *, builds: bool) -> Iterator[Check]:
    folders = [*_folders(settings)] if builds else []
    yield Check(
        name="disk",
        run=MachineCheck(folders=folders).run,
        if_silent="check the disks of this machine, and whether one is a network drive",
    )
    if builds and serves_git(settings):
        yield Check(
            name="git",
            run=GitCheck(find=_find_git, missing=SettingsError).run,
            if_silent="run `git --version` on this machine",
        )


def _folders(settings: Settings) -> Iterator[FolderNeeds]:
    worker = settings.worker
    is_default = "data_dir" not in settings.model_fields_set
    yield FolderNeeds(
        check="disk.work_dir",
        setting="worker.work_dir" if worker.work_dir else "data_dir",
        folder=adapters.work_dir(settings),
        spare_bytes=SPARE_BYTES,
        max_bytes=worker.work_max_bytes,
        max_setting="worker.work_max_bytes",
        is_default=is_default and not worker.work_dir,
    )
    if serves_git(settings):
        yield FolderNeeds(
            check="disk.mirror_dir",
            setting="worker.mirror_dir" if worker.mirror_dir else "data_dir",
            folder=adapters.mirror_dir(settings),
            spare_bytes=SPARE_BYTES,
            max_bytes=worker.mirror_max_bytes,
            max_setting="worker.mirror_max_bytes",
            is_default=is_default and not worker.mirror_dir,
        )
    if settings.data_dir.exists():
        yield FolderNeeds(
            check="disk.data_dir",
            setting="data_dir",
            folder=settings.data_dir,
            spare_bytes=SPARE_BYTES,
            is_default=is_default,
        )


def _find_git() -> tuple[str, str]:
    git = find_supported_git()
    return git.path, ".".join(map(str, git.version()))


def _of_engine(settings: Settings) -> Check:
    def open_engine() -> AbstractAsyncContextManager[Inspection]:
        return open_inspection(adapters.engine_servers(settings), namespace=adapters.NAMESPACE)

    check = EngineCheck(
        open_engine=open_engine, replicas=settings.engine.replicas, version=__version__
    )
    return Check(name="engine", run=check.run, if_silent=f"{_ROUTE} engine.url")


def _of_region(name: str, region: RegionSettings, settings: Settings, *, builds: bool) -> Check:
    names = RegionNames(
        region=name,
        bucket=region.bucket,
        aws_region=region.aws_region or name,
        has_public_endpoint=region.public_endpoint is not None,
    )
    bucket = S3TrialBucket(
        adapters.s3_settings(name, region),
        bucket=adapters.create_bucket(name, region, settings),
        public_endpoint=region.public_endpoint,
    )
    return Check(
        name=f"region.{name}",
        run=RegionCheck(names=names, bucket=bucket, writes=builds).run,
        if_silent=f"{_ROUTE} {names.endpoint_setting}",
    )


def _of_source(
    name: str, source: SourceSettings, settings: Settings, samples: Sequence[Sample]
) -> Check:
    config = adapters.source_config(name, source, settings)
    check = SourceCheck(
        name=name,
        reach=partial(reach, config),
        open_source=partial(open_source, config),
        samples=samples,
        makes=source.kind == "git",
        detect=suffix_of,
    )
    return Check(
        name=f"source.{name}", run=check.run, if_silent=f"{_ROUTE} sources.{name}.url_template"
    )


def _named_samples(name: str, settings: Settings) -> Sequence[Sample]:
    """Return the first branch that a rule of prewarming polls at the source *name*."""
    return [
        Sample(repo=rule.repos[0], rev=rule.branches[0])
        for rule in settings.prewarm.values()
        if rule.source == name and rule.poll_s
    ][:1]
