"""Reports why a command failed: a line for people and log parsers, and JSON for programs."""

from __future__ import annotations

import json
import select
import sys
from contextlib import suppress

import click

from archiver.client.failures import CommandFailed, InvalidUsage

AS_JSON = "archiver.as_json"
"""The key in a context's ``meta`` under which ``--json`` is noted."""


def report_failure(failure: CommandFailed) -> None:
    """Print *failure*.

    With ``--json``, the last line on standard output is a document with the member ``error``,
    unless nothing can be written there.
    """
    print_failure(failure)
    context = click.get_current_context(silent=True)
    if context and context.meta.get(AS_JSON) and _is_stdout_read():
        with suppress(OSError):  # it may be what failed
            click.echo(json.dumps({"error": describe_failure(failure)}))


def print_failure(failure: CommandFailed) -> None:
    """Write ``Error: …`` to standard error, and ``Hint: …`` below if something can be done."""
    click.echo(f"Error: {failure.message}", err=True)
    if failure.hint:
        click.echo(f"Hint: {failure.hint}", err=True)


def _is_stdout_read() -> bool:
    """Return whether a short write to standard output will not block."""
    try:
        return bool(select.select((), (sys.stdout,), (), 0)[1])
    except (OSError, ValueError):  # not a file of the system
        return True


def report_usage(error: click.UsageError) -> None:
    """Write the document of a wrong option, if ``--json`` was read. click writes the message."""
    if error.ctx and error.ctx.meta.get(AS_JSON):
        failure = InvalidUsage(error.format_message())
        click.echo(json.dumps({"error": describe_failure(failure)}))


def describe_failure(failure: CommandFailed) -> dict[str, object]:
    return {
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint or None,
        "exit_code": failure.exit_code,
    }
