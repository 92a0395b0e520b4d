"""Creates the breakers that the settings describe."""

from collections.abc import Mapping
from datetime import timedelta

from archiver.breaker import BreakerName, BreakerPolicy
from archiver.guard import Guard
from archiver.jetstream.breakers import JetStreamBreakers
from archiver.jetstream.connection import Connection
from archiver.settings import Settings

REGION = BreakerPolicy(failures=3, pause=timedelta(seconds=5), pause_max=timedelta(seconds=5))
"""A check of a region costs nothing, so a region that is back is noticed soon."""


def create_guard(settings: Settings, connection: Connection) -> tuple[JetStreamBreakers, Guard]:
    """Return the breakers, to be kept current, and the guard, to be followed."""
    policies = breaker_policies(settings)
    breakers = JetStreamBreakers(connection=connection, names=policies.keys())
    return breakers, Guard(breakers=breakers, policies=policies)


def breaker_policies(settings: Settings) -> Mapping[BreakerName, BreakerPolicy]:
    sources = {
        BreakerName("source", name): BreakerPolicy(failures=source.breaker_failures)
        for name, source in settings.sources.items()
    }
    return sources | {BreakerName("region", name): REGION for name in settings.regions}
