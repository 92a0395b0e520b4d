"""Sources are opened by their kind, and count the bytes of archives."""

from typing import get_args

from prometheus_client import REGISTRY

from archiver.settings.source import SourceSettings
from archiver.sources.open import ADAPTERS
from tests.parts.hgweb import Ash, Hgweb
from tests.sources.hgmo import an_archive, fetch, known


def test_each_kind_in_the_settings_has_an_adapter() -> None:
    assert set(get_args(SourceSettings.model_fields["kind"].annotation)) == set(ADAPTERS)


def test_the_bytes_of_archives_are_counted_and_those_of_lookups_are_not(
    hgweb: Hgweb, ash: Ash
) -> None:
    before = _source_bytes()
    assert known(hgweb.template, ash.node, ash.repo)
    assert _source_bytes() == before

    data, _ = fetch(hgweb.template, an_archive(repo=ash.repo, node=ash.node))

    assert _source_bytes() == before + len(data)


def _source_bytes() -> float:
    return REGISTRY.get_sample_value("archiver_source_bytes_total", {"source": "hgmo"}) or 0
