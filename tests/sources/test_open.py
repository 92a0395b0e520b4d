"""Every kind of source in the settings has an adapter."""

from typing import get_args

from archiver.settings.source import SourceSettings
from archiver.sources.open import ADAPTERS


def test_each_kind_in_the_settings_has_an_adapter() -> None:
    assert set(get_args(SourceSettings.model_fields["kind"].annotation)) == set(ADAPTERS)
