"""Builds the client as one file, which needs nothing but Python 3.9 or later."""

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "archiver"
CLI = (
    *("__init__", "get", "lock", "lock_additions", "lock_changes", "lock_formats", "fetch"),
    *("options", "prewarm", "progress", "signals", "status", "verify", "completion"),
    *("failure_report", "streams"),
)

MODULES = (
    "__init__.py",
    "client/*.py",
    *(f"cli/{name}.py" for name in CLI),
)
"""What `archiver get`, `lock`, `fetch`, `status`, `verify` and `prewarm` import."""

MAIN = b"from archiver.cli import main\n\nmain(prog_name='archiver')\n"
SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)


def files(libraries: Path) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents: the client, and all Python modules in the folder *libraries*."""
    yield "__main__.py", MAIN
    for pattern in MODULES:
        for path in PACKAGE.glob(pattern):
            yield f"archiver/{path.relative_to(PACKAGE)}", path.read_bytes()
    for path in libraries.rglob("*.py"):
        yield str(path.relative_to(libraries)), path.read_bytes()


def build(target: Path, libraries: Path) -> None:
    """Write *target*, which has the same bytes whenever its content is the same."""
    with target.open("wb") as file:
        file.write(SHEBANG)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sorted(files(libraries)):
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, content)
    target.chmod(0o755)


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]))
