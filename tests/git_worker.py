"""A worker process that makes archives of git commits: ``python -m tests.git_worker``.

Arguments: the URL template, the folder of the worker, the git program, and nodes. Prints each node
with the SHA-256 of its archive.
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from archiver.sources.git.program import find_git
from tests.git_world import git_source_config, git_world


async def main(template: str, folder: str, git: str, *nodes: str) -> None:
    program = replace(find_git(), path=git)
    async with git_world(git_source_config(template), Path(folder), git=program) as world:
        await world.mirrors.clean_up()
        for node in nodes:
            made = await world.make(node)
            print(node, made.sha256, flush=True)  # noqa: T201 - the result


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
