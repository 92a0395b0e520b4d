"""``POST /hooks/{name}``: a host announces a push, and the rules name the archives to build."""

import asyncio
import re
from collections.abc import Mapping, Sequence

from starlette.responses import JSONResponse

from archiver.errors import Unauthenticated
from archiver.model import Archive, Pending, Stored
from archiver.prewarm.hook import BODY_MAX_BYTES, Hook
from archiver.prewarm.payloads import FORM_HINT, is_form
from archiver.prewarm.push import Push
from archiver.prewarm.rules import archives_after
from archiver.runtime.threads import run_in_thread
from archiver.telemetry import METRICS, log
from archiver.upkeep.catalogue_json import render_name
from archiver.web.problems import Misdirected
from archiver.web.reply import HIT, Reply, client_left
from archiver.web.request_body import Disconnected, receive_body
from archiver.web.request_context import RequestContext

LARGE_BYTES = 64 << 10
"""A larger body is hashed and parsed in a thread: 4 MiB take some 20 ms."""

UNKNOWN_HOOK = "unknown"
"""In the place of a name in metrics, because clients must not invent labels."""

ORIGIN = "hook"

_EVENT = re.compile(r"[A-Za-z][A-Za-z_ ]{0,39}")
"""Names of events such as ``pull_request`` and ``Merge Request Hook``."""

OK, ACCEPTED = 200, 202


async def post_hook(context: RequestContext) -> Reply:
    """Return what a verified delivery causes: 202 if there are tasks, else 200.

    The tasks are stored before the answer, so a sender that gets an error may send it again.
    """
    hook = context.state.config.hooks.get(context.parameters["hook"])
    name = hook.name if hook else UNKNOWN_HOOK
    try:
        async with receive_body(context, max_bytes=BODY_MAX_BYTES) as body:
            push = await _read(context, hook, body)
    except Disconnected:
        return client_left()
    except Exception:
        METRICS.hook_deliveries.labels(hook=name, outcome="refused").inc()
        raise
    if hook is None or push is None:
        event = hook.other_event(_headers(context)) if hook else None
        return _reply(name, "ignored", _no_push(event))
    context.source = hook.source
    archives = _wanted(context, hook, push)
    log.info(
        "hook.received",
        hook=name,
        source=hook.source,
        repo=push.repo,
        ref=push.name,
        node=push.node,
        archives=len(archives),
    )
    if not archives:
        return _reply(name, "ignored", "no rule has this repo and this branch or tag")
    try:
        found = await _expect(context, archives, client=f"hook:{name}")
    except Exception:
        METRICS.hook_deliveries.labels(hook=name, outcome="failed").inc()
        raise
    return _reply(name, "accepted", None, found)


def _no_push(event: str | None) -> str:
    """Return why a delivery builds nothing, with its *event* if that looks like one of a host."""
    if event is None:
        return "the delivery is no push of a commit to a branch or a tag"
    shown = f'the event "{event}"' if _EVENT.fullmatch(event) else "the event of the delivery"
    return f"{shown} builds no archive; only a push does"


async def _read(context: RequestContext, hook: Hook | None, body: bytes) -> Push | None:
    """Raises Misdirected if the delivery is not signed, and InvalidRequest if it is malformed.

    The sender does not learn whether there is such a hook.
    """
    headers = _headers(context)

    def read() -> Push | None:
        refusal = hook.refusal(headers, body) if hook else "no such hook"
        if hook is None or refusal:
            detail = "there is no such hook, or the delivery is not signed with its secret"
            if is_form(body):  # Gitea and Forgejo sign the JSON in it
                detail = f"{detail}; {FORM_HINT}"
            context.refusal = Unauthenticated(detail, reason=str(refusal))
            raise Misdirected("bad_signature", detail)
        return hook.read(headers, body)

    return await run_in_thread(read) if len(body) > LARGE_BYTES else read()


def _headers(context: RequestContext) -> Mapping[str, str]:
    names = {name for name, _ in context.headers if name.startswith((b"x-", b"webhook-"))}
    return {name.decode("latin-1"): context.header(name) for name in names}


def _wanted(context: RequestContext, hook: Hook, push: Push) -> Sequence[Archive]:
    """Return the archives of a push, none if its repo is not served. Raises InvalidRequest."""
    source = context.state.archiver.source(hook.source)
    rules = context.state.access.policy.sources.get(hook.source)
    if len(push.node) not in source.node_digits or not (rules and rules.repos.accepts(push.repo)):
        return ()
    return archives_after(context.state.config.prewarm_rules, hook.source, push)


async def _expect(
    context: RequestContext, archives: Sequence[Archive], *, client: str
) -> Sequence[tuple[Archive, str]]:
    """Return the outcome of each archive. Raises the first error, if any, after all have ended."""
    expect = context.state.archiver.expect
    ended = await asyncio.gather(
        *(expect(archive, client=client) for archive in archives), return_exceptions=True
    )
    outcomes: list[tuple[Archive, str]] = []
    failure: BaseException | None = None
    for archive, end in zip(archives, ended, strict=True):
        outcome = _outcome(end)
        METRICS.prewarmed.labels(origin=ORIGIN, outcome=outcome).inc()
        outcomes.append((archive, outcome))
        failure = failure or (end if isinstance(end, BaseException) else None)
    if failure:
        raise failure
    return outcomes


def _outcome(end: Stored | Pending | BaseException) -> str:
    match end:
        case Stored():
            return HIT
        case Pending():
            return str(end.outcome)
        case _:
            return "refused"


def _reply(
    name: str, outcome: str, reason: str | None, found: Sequence[tuple[Archive, str]] = ()
) -> Reply:
    """The outcome of an archive with submodules would show whether all of them could be read."""
    METRICS.hook_deliveries.labels(hook=name, outcome=outcome).inc()
    shown = [(archive, None if archive.submodules else each) for archive, each in found]
    archives = [{"outcome": each, **render_name(archive)} for archive, each in shown]
    body = {"outcome": outcome, "reason": reason, "archives": archives}
    has_tasks = any(each != HIT for _, each in shown)
    return Reply(response=JSONResponse(body, status_code=ACCEPTED if has_tasks else OK))
