"""The settings of the campaign's fleet: short leases, and limits that its faults can reach."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from tests.faults.host import template_for
from tests.parts.fault_cases import MAX_FAILURES
from tests.parts.http_faults import (
    DEADLINE_S,
    MIN_RATE_BYTES_S,
    MIN_RATE_WINDOW_S,
    READ_TIMEOUT_S,
)
from tests.system.stack import UNLIMITED

LEASE_S = 3.0
CONCURRENCY = 4
"""Fetches at a host at a time, of the whole fleet."""

HOST_NAME = "vcs.faults.test"
"""The host's name, which only ``resolver/sitecustomize.py`` can resolve."""

BRANCH = "default"
"""Each push to it is built before a client asks."""

SOURCES = ("hgmo", "named", "zips", "hidden")
"""The sources of the hgweb-like host. ``named`` knows it by name, ``zips`` fetches only zips, and
``hidden`` is private."""


def settings_of(
    *,
    engine: str,
    regions: Mapping[str, Mapping[str, str]],
    host: str,
    git_host: str,
    git: Path,
    token: str,
    folder: Path,
    disk: Path,
) -> dict[str, str]:
    """Return the environment of all processes of a fleet.

    *engine* is the URL of the cluster, *host* and *git_host* are templates. *git* is the folder of
    the program that workers use.
    """
    paths = [str(Path(__file__).parent / "resolver"), os.environ.get("PYTHONPATH", "")]
    token_hash = f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"
    settings = {
        "SERVER__PROCESSES": "1",
        "SERVER__TRUSTED_PROXIES": '["127.0.0.0/8"]',
        "SERVER__RETRY_AFTER_S": "1",
        "ENGINE__URL": engine,
        "ENGINE__REPLICAS": "3",
        "ENGINE__LEASE_S": str(LEASE_S),
        "ENGINE__ARCHIVES": "100000",
        "REGIONS": json.dumps(regions),
        "TOKENS__CAMPAIGN__HASH": token_hash,
        "PREWARM__DEFAULT__SOURCE": "hgmo",
        "PREWARM__DEFAULT__REPOS": '["*"]',
        "PREWARM__DEFAULT__BRANCHES": f'["{BRANCH}"]',
        "HOOKS__FAULTS__KIND": "standard",
        "HOOKS__FAULTS__SOURCE": "hgmo",
        "HOOKS__FAULTS__SECRET": token,
        "SOURCES__LAB__KIND": "git",
        "SOURCES__LAB__URL_TEMPLATE": git_host,
        "SOURCES__NAMED__ALLOW_PRIVATE_ADDRESSES": "true",
        "SOURCES__ZIPS__FETCH_SUFFIX": "zip",
        "SOURCES__HIDDEN__PRIVATE": "true",
        "WORKER__CONCURRENCY": "4",
        "WORKER__GRACE_S": "1",
        "WORKER__MAX_FAILURES": str(MAX_FAILURES),
        "WORKER__RETRY_BASE_S": "0.2",
        "WORKER__REPAIR_INTERVAL_S": "0.5",
        "WORKER__WORK_DIR": str(disk / "work"),
        "WORKER__MIRROR_DIR": str(disk / "mirrors"),
        "DATA_DIR": str(folder / "data"),
        "LOG__FORMAT": "json",
    }
    for name in SOURCES:
        settings |= {
            f"SOURCES__{name.upper()}__{key}": value
            for key, value in {
                "URL_TEMPLATE": _template(host, name),
                "CONCURRENCY": str(CONCURRENCY),
                "READ_TIMEOUT_S": str(READ_TIMEOUT_S),
                "DEADLINE_S": str(DEADLINE_S),
                "MIN_RATE_BYTES_S": str(MIN_RATE_BYTES_S),
                "MIN_RATE_WINDOW_S": str(MIN_RATE_WINDOW_S),
            }.items()
        }
    prefixed = {f"ARCHIVER_{name}": value for name, value in settings.items()}
    machine = {
        "PATH": os.pathsep.join([str(git), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "FAULTS_HOSTS": str(folder / "hosts"),
    }
    return {**UNLIMITED, **prefixed, **machine}


def _template(host: str, source: str) -> str:
    if source == "hgmo":  # the cases of faults are only for this one
        return host
    template = template_for(host, source)
    return template.replace("127.0.0.1", HOST_NAME) if source == "named" else template
