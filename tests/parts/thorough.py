"""Cases of tests that take long, which only ``make thorough`` runs."""

import pytest
from _pytest.mark import ParameterSet


def thorough(*cases: object) -> list[ParameterSet]:
    """Return each of *cases* as a parameter of a test that is marked as thorough."""
    return [pytest.param(case, marks=pytest.mark.thorough) for case in cases]
