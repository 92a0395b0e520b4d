"""A web process with a seeded index."""

from pathlib import Path

import pytest

from benchmarks.seeding import seed, urls
from tests.system.client import fetch
from tests.system.stack import servers

UNREACHABLE = "http://127.0.0.1:9/{repo}/archive/{rev}.{suffix}/{subdir}"


@pytest.mark.thorough
def test_seeded_archives_are_hits_without_the_host(tmp_path: Path) -> None:
    with servers(tmp_path, template=UNREACHABLE) as stack:
        seed(stack, 20)
        with stack.web():
            answers = [fetch(url) for url in urls(stack, range(20))]

    assert {answer.status for answer in answers} == {302}
    assert len({answer.location for answer in answers}) == 20
