"""``archiver purge`` beside a running fleet with two web processes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.parts.hgweb import Hgweb, Repository
from tests.parts.process import wait_until
from tests.system.client import fetch, succeed
from tests.system.stack import REGIONS, Stack, servers

pytestmark = pytest.mark.thorough

TWO_PROCESSES = {"ARCHIVER_SERVER__PROCESSES": "2", "ARCHIVER_SERVER__HIT_TTL_S": "300"}


def purge(stack: Stack, selection: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "archiver", "purge", selection, "--yes", "--reason", "a test"],
        env={**os.environ, **stack.env},
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def stored(stack: Stack) -> dict[str, list[str]]:
    """Return the names of all files of archives and manifests in each region."""
    return {
        region: [path.name for path in stack.visible(region) if "probes" not in path.parts]
        for region in REGIONS
    }


def test_no_process_redirects_to_an_archive_a_second_after_its_purge(
    tmp_path: Path, hgweb: Hgweb, fresh: Repository
) -> None:
    node = fresh.commit({"README": b"read me"})
    with (
        servers(tmp_path, template=hgweb.template) as stack,
        stack.worker(),
        stack.web(TWO_PROCESSES),
    ):
        url = stack.url(fresh.name, node, "on_miss=none")
        succeed(stack.url(fresh.name, node))
        link = [fetch(url) for _ in range(40)][-1].location
        assert fetch(link).status == 200

        result = purge(stack, f"hgmo/{fresh.name}/{node}")
        assert result.returncode == 0, result.stderr
        time.sleep(1)
        assert {fetch(url).status for _ in range(40)} == {404}
        assert fetch(link).status == 404
        assert stored(stack) == {region: [] for region in REGIONS}

        assert succeed(stack.url(fresh.name, node))["state"] == "SUCCESS"
        assert fetch(url).status == 302


def test_a_region_that_missed_the_purge_brings_nothing_back(
    tmp_path: Path, hgweb: Hgweb, fresh: Repository
) -> None:
    """The worker sweeps the repair list twice a second."""
    node = fresh.commit({"README": b"read me"})
    with servers(tmp_path, template=hgweb.template) as stack, stack.worker(), stack.web():
        url = stack.url(fresh.name, node)
        succeed(url)
        stack.regions[REGIONS[1]].down()
        result = purge(stack, f"hgmo/{fresh.name}")
        assert result.returncode == 75, result.stderr
        assert REGIONS[1] in result.stderr.splitlines()[-2]
        assert fetch(url).json["code"] == "purge_unfinished"

        stack.regions[REGIONS[1]].up()
        kept = stored(stack)
        assert (len(kept[REGIONS[0]]), len(kept[REGIONS[1]])) == (1, 2)  # a mark; a copy
        wait_until(lambda: fetch(f"{stack.public}/__heartbeat__").status == 200)
        assert fetch(url).json["code"] == "purge_unfinished"
        time.sleep(2)  # for sweeps of the repair list
        assert stored(stack) == kept

        assert purge(stack, f"hgmo/{fresh.name}").returncode == 0
        assert stored(stack) == {region: [] for region in REGIONS}
