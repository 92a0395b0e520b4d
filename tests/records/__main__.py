"""``python -m tests.records shapes``: write the shapes of all records after a change of one.

``python -m tests.records snapshot NAME [SOURCE]`` runs a fleet and writes what it stores: see
``snapshot.py``.
"""

import sys

from tests.records import shapes, snapshot


def main() -> None:
    match sys.argv[1:]:
        case ["shapes"]:
            shapes.SHAPES.write_text(shapes.text())
        case ["snapshot", name, *source]:
            snapshot.write(name, source=source[0] if source else "src")
        case _:
            sys.exit(__doc__)


main()
