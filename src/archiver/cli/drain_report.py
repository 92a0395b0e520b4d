"""The states of workers that were to drain, as text and as JSON."""

import json
from collections.abc import Sequence

from archiver.client.text import printable
from archiver.upkeep.drain import Drained, DrainState

_WIDTH = max(map(len, DrainState))


def format_drained(drained: Drained) -> str:
    count = len(drained.running)
    tasks = "" if not count else f"  runs {count} task{'' if count == 1 else 's'}: "
    tasks += ", ".join(printable(task) for task in drained.running)
    return f"{drained.state:<{_WIDTH}}  {printable(drained.worker)}{tasks}"


def to_json_line(drained: Drained) -> str:
    return json.dumps(
        {
            "worker": drained.worker,
            "state": drained.state,
            "running": list(drained.running),
        }
    )


def to_json_summary(states: Sequence[Drained], duration_s: float) -> str:
    gone = sum(drained.state is DrainState.GONE for drained in states)
    return json.dumps({"workers": len(states), "gone": gone, "duration_s": round(duration_s, 3)})
