"""``archiver audit`` when the host's bytes change and the engine is down."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parts.hgweb import Hgweb, Repository
from tests.parts.json_output import documents
from tests.system.client import succeed
from tests.system.stack import REGIONS, Stack, servers

pytestmark = pytest.mark.thorough


def audit(stack: Stack, *words: str) -> tuple[int, list[dict[str, Any]], str]:
    """Run ``archiver audit --json``; return its exit code, standard output and standard error."""
    ended = subprocess.run(
        [sys.executable, "-m", "archiver", "audit", "--json", *words],
        env={**stack.env, "ARCHIVER_DATA_DIR": str(stack.folder / "data")},
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ended.returncode, documents(ended.stdout), ended.stderr


def files(stack: Stack) -> dict[Path, bytes]:
    """Return the contents of all files in all buckets."""
    return {path: path.read_bytes() for region in REGIONS for path in stack.visible(region)}


def test_the_effect_of_a_later_tag_is_reported_and_nothing_is_changed(
    tmp_path: Path, hgweb: Hgweb, fresh: Repository
) -> None:
    node = fresh.commit({"README": b"read me", "testing/a.py": b"a = 1\n"})
    with servers(tmp_path, template=hgweb.template) as stack:
        with stack.web(), stack.worker():
            tasks = {
                query: succeed(stack.url(fresh.name, node, query))["task_id"]
                for query in ("", "suffix=tar.zst", "subdir=testing")
            }
        stack.nats.down()
        before = files(stack)

        code, findings, errors = audit(stack)
        assert (code, errors) == (0, "3 archives: 3 same\n")
        assert {finding["task"] for finding in findings} == set(tasks.values())

        theirs = hgweb.archive(fresh.name, node, "tar.gz")
        fresh.tag("V_1", node)
        ours = hgweb.archive(fresh.name, node, "tar.gz")
        code, findings, errors = audit(stack, *tasks.values())

        whole, converted, part = findings
        summary, error, _hint = errors.splitlines()
        assert (code, summary) == (1, "3 archives: 1 same, 2 differs")
        assert error == "Error: 2 archives are not what the host sends"
        assert [part["outcome"], part["drift"]] == ["same", None]
        assert whole["stored"]["sha256"] == hashlib.sha256(theirs).hexdigest()
        assert whole["fetched"]["sha256"] == hashlib.sha256(ours).hexdigest()
        assert converted["stored"]["sha256"] != converted["fetched"]["sha256"]
        assert converted["fetched"]["conversion"]["sha256"] == whole["fetched"]["sha256"]
        for finding in (whole, converted):
            (difference,) = finding["drift"]["differences"]
            assert difference["name"] == f"{Path(fresh.name).name}-{node[:12]}/.hg_archival.txt"
            assert difference["aspects"] == ["content"]
            assert difference["stored"]["sha256"] != difference["fetched"]["sha256"]
            assert (finding["drift"]["members"], finding["drift"]["reordered"]) == (1, False)
        assert files(stack) == before
        assert not any((stack.folder / "data" / "work").iterdir())


def test_an_audit_without_storage_exits_with_a_temporary_failure(
    tmp_path: Path, hgweb: Hgweb
) -> None:
    with servers(tmp_path, template=hgweb.template) as stack:
        for region in stack.regions.values():
            region.down()

        code, findings, errors = audit(stack)

    assert (code, findings) == (75, [])
    assert "storage_unavailable" in errors
