"""Runs the checks of ``archiver doctor`` on settings."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from archiver.diagnosis.examination import examine
from archiver.diagnosis.finding import Finding, Level
from archiver.diagnosis.source_check import Sample
from archiver.settings import Settings
from archiver.wiring.diagnosis import create_checks
from tests.parts.s3 import ACCESS_KEY, REGIONS, SECRET_KEY, Home

REGION = REGIONS[0]


def diagnose(
    settings: Mapping[str, Any],
    *,
    only: str,
    builds: bool = True,
    samples: Mapping[str, Sequence[Sample]] | None = None,
) -> list[Finding]:
    """Return the findings of the checks with this name, or below it."""
    checks = create_checks(Settings(**settings), builds=builds, samples=samples or {})
    found: list[Finding] = []
    chosen = [check for check in checks if check.name == only]
    assert chosen, [check.name for check in checks]
    asyncio.run(examine(chosen, found.append))
    return found


def unwell(found: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level is not Level.OK]


def of(found: Sequence[Finding], check: str) -> Finding:
    (finding,) = (finding for finding in found if finding.check == check)
    return finding


def region_settings(home: Home, **changes: str) -> dict[str, Any]:
    """Return settings with one region, with *changes*."""
    region = {
        "bucket": home.names[REGION],
        "endpoint": home.server.endpoint,
        "aws_region": "us-east-1",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
    }
    return {"regions": {str(REGION): {**region, **changes}}}


def diagnose_region(home: Home, *, builds: bool = True, **changes: str) -> list[Finding]:
    settings = region_settings(home, **changes)
    return diagnose(settings, only=f"region.{REGION}", builds=builds)
