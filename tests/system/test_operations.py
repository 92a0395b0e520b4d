"""An operator's lists of a running service: what is stored, and whose tasks wait and fail."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.parts.hgweb import Ash, Hgweb
from tests.system.client import fetch, succeed
from tests.system.stack import Stack, servers

TOKEN = "archiver_" + "t" * 43
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
SETTINGS = {
    "ARCHIVER_TOKENS": json.dumps(
        {
            "ops": {
                "hash": f"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
                "scopes": ["admin"],
            }
        }
    ),
    "ARCHIVER_WORKER__MAX_FAILURES": "1",
}


def look_up(stack: Stack, path: str) -> Any:  # noqa: ANN401 - it is JSON
    answer = fetch(f"{stack.public}/archiver/{path}", headers=HEADERS)
    assert answer.status == 200, answer
    return answer.json


@pytest.mark.thorough
def test_an_operator_lists_archives_and_tasks(tmp_path: Path, hgweb: Hgweb, ash: Ash) -> None:
    template = hgweb.template_for(hgweb.port)
    with servers(tmp_path, template=template, settings=SETTINGS) as stack, stack.web():
        urls = [stack.url(ash.repo, ash.node, f"suffix={s}") for s in ("tar.gz", "tar", "zip")]
        with stack.worker():
            results = [succeed(url) for url in urls]
        pages = [look_up(stack, "archives?limit=2")]
        pages.append(look_up(stack, f"archives?limit=2&cursor={pages[0]['next']}"))
        listed = [archive for page in pages for archive in page["archives"]]
        assert pages[1]["next"] is None
        assert {each["sha256"] for each in listed} == {result["sha256"] for result in results}
        assert len(listed) == len(results)

        fetch(stack.url(ash.repo, ash.node, "subdir=testing&suffix=tar.xz"))
        tasks = look_up(stack, "tasks")
        assert tasks["counts"] == [{"state": "PENDING", "source": "hgmo", "tasks": 1}]
        assert [task["client"] for task in tasks["tasks"]] == ["127.0.0.1"]
        assert tasks["clients"] == [{"client": "127.0.0.1", "tasks": 1}]
        status = fetch(f"{stack.public}/archiver/status/{tasks['tasks'][0]['task']}")
        assert "client" not in status.json["result"]
        assert fetch(f"{stack.public}/archiver/tasks").status == 401
