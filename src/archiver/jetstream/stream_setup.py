"""Creates a stream, or updates it without losing what it holds."""

from collections.abc import Collection
from dataclasses import fields

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, StreamConfig, StreamInfo, StreamState

from archiver.telemetry import log

NAME_IN_USE = 10058

CANNOT_RESERVE = frozenset({10005, 10023, 10028, 10047, 10122})
"""No server, or not the account, has the bytes that the stream may hold. Some of these have other
reasons, which remain without a limit in bytes."""

UNBOUNDED = -1


async def ensure_stream(js: JetStreamContext, wanted: StreamConfig) -> StreamConfig:
    """Return the configuration of a stream that was created, or updated where Archiver needs it.

    Replicas stay as they are. Limits are not applied if the stream would remove what it holds, or
    if the server cannot reserve the bytes.
    """
    try:
        existing = await js.stream_info(str(wanted.name))
    except nats.js.errors.NotFoundError:
        try:
            return await _create(js, wanted)
        except nats.js.errors.APIError as exc:
            if exc.err_code != NAME_IN_USE:  # by a process with another setting
                raise
        existing = await js.stream_info(str(wanted.name))
    return await _update(js, existing.config, _adapt(existing, wanted))


async def _create(js: JetStreamContext, wanted: StreamConfig) -> StreamConfig:
    try:
        return (await js.add_stream(wanted)).config
    except nats.js.errors.APIError as exc:
        if exc.err_code not in CANNOT_RESERVE:
            raise
    return (await js.add_stream(wanted.evolve(max_bytes=UNBOUNDED))).config


async def _update(
    js: JetStreamContext, existing: StreamConfig, wanted: StreamConfig
) -> StreamConfig:
    """A server that has less room than its streams reserve refuses every change of them."""
    for config in (wanted, wanted.evolve(max_bytes=existing.max_bytes)):
        if config == existing:
            break
        try:
            return (await js.update_stream(config)).config
        except nats.js.errors.APIError as exc:
            if exc.err_code not in CANNOT_RESERVE:
                raise
            log.debug("engine.not_updated", stream=config.name, err_code=exc.err_code)
    return existing


def _adapt(existing: StreamInfo, wanted: StreamConfig) -> StreamConfig:
    """Settings of the operator stay: placement, replicas and their consequences."""
    changes = {
        field.name: value
        for field in fields(wanted)
        if (value := getattr(wanted, field.name)) not in (None, field.default)
    }
    changes["discard"] = wanted.discard  # one of the two is the default
    changes["subjects"] = subjects_of_both(existing.config.subjects or (), wanted.subjects or ())
    del changes["num_replicas"]
    if wanted.allow_direct is not None:
        changes["allow_direct"] = existing.config.num_replicas == 1
    if wanted.discard is DiscardPolicy.OLD and _exceeds(existing.state, wanted):
        del changes["max_bytes"], changes["max_msgs"]
    return existing.config.evolve(**changes)


def subjects_of_both(existing: Collection[str], wanted: Collection[str]) -> list[str]:
    """Return the *wanted* subjects and those that a later release has added.

    The server accepts no subject that another one of the stream covers.
    """
    wider = [each for each in existing if not any(covers(subject, each) for subject in wanted)]
    kept = [w for w in wanted if not any(covers(subject, w) for subject in wider)]
    return [*kept, *wider]


def covers(pattern: str, subject: str) -> bool:
    """Return whether *pattern* matches all that *subject*, a pattern as well, matches."""
    tokens, narrower = pattern.split("."), subject.split(".")
    if tokens[-1] == ">":
        tokens.pop()
        narrower = narrower[: len(tokens)] if len(narrower) > len(tokens) else []
    pairs = zip(tokens, narrower, strict=False)
    return len(tokens) == len(narrower) and all(
        wide == narrow or (wide == "*" and narrow != ">") for wide, narrow in pairs
    )


def _exceeds(state: StreamState, limits: StreamConfig) -> bool:
    return state.messages > (limits.max_msgs or 0) or state.bytes > (limits.max_bytes or 0)
