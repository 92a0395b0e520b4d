"""From the settings to the policy of access."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from archiver.access.access import Access
from archiver.access.patterns import RepoFilter
from archiver.access.policy import Policy, SourcePolicy
from archiver.access.policy_file import CHECK_INTERVAL, PolicyFile, UnreadablePolicy
from archiver.access.scopes import Scope
from archiver.settings.load import load
from archiver.settings.section import SettingsError
from archiver.settings.source import SourceSettings
from archiver.settings.tree import Settings


def access_policy(settings: Settings) -> Policy:
    """Return the policy that the settings describe."""
    access, tokens = settings.access, settings.tokens
    return Policy(
        sources={
            name: _source_policy(source, access.anonymous or "create")
            for name, source in settings.sources.items()
        },
        grants={name: token.grant for name, token in tokens.items()},
        names={token.hash: name for name, token in tokens.items()},
        proxy_header=(access.proxy_header or "").lower().encode(),
        proxy_grant=access.proxy_grant,
    )


def _source_policy(source: SourceSettings, anonymous: str) -> SourcePolicy:
    return SourcePolicy(
        anonymous=Scope.parse(source.anonymous or anonymous),
        private=source.private,
        repos=RepoFilter(allowed=source.repos, denied=source.repos_denied),
    )


def policy_file(path: Path, *, check_interval: timedelta = CHECK_INTERVAL) -> PolicyFile:
    """Return the follower of the policy in the TOML file at *path*."""

    def read() -> Policy:
        try:
            return access_policy(load(path))
        except SettingsError as exc:
            raise UnreadablePolicy(str(exc)) from exc

    return PolicyFile(path, read=read, check_interval=check_interval)


def access_warnings(settings: Settings) -> Iterator[str]:
    """Yield what an operator may have overlooked."""
    if settings.access.anonymous is None and not _is_loopback(settings.server.url):
        yield (
            "access.anonymous is not set, so everybody who reaches "
            f"{settings.server.url} may have archives built"
        )
    if settings.access.proxy_header and not settings.server.trusted_proxies:
        yield "access.proxy_header has no effect, because server.trusted_proxies is empty"
    if settings.access.proxy_header and _trusts_everybody(settings):
        yield (
            "access.proxy_header lets every client name itself, because server.trusted_proxies has "
            "all addresses"
        )
    for name, token in settings.tokens.items():
        if token.expires_at and token.expires_at <= datetime.now(UTC):
            yield f"tokens.{name} expired at {token.expires_at:%Y-%m-%d %H:%M} UTC"
        if not any(token.grant.covers(source) for source in settings.sources):
            yield f"tokens.{name} covers no source"
    yield from _uncovered_sources(access_policy(settings))
    if settings.tokens:
        yield from _shared_names(settings)


def _trusts_everybody(settings: Settings) -> bool:
    return any(ip_network(each).prefixlen == 0 for each in settings.server.trusted_proxies)


def _uncovered_sources(policy: Policy) -> Iterator[str]:
    access = Access(policy)
    for name, source in policy.sources.items():
        covered = any(
            access.scope(access.of_token(token), name) >= Scope.READ for token in policy.grants
        )
        if source.private and not covered and not policy.proxy_header:
            yield f"sources.{name} is private, and no valid token covers it"


def _shared_names(settings: Settings) -> Iterator[str]:
    """Netrc has one token per host name, whatever the port, so S3 would get it as well."""
    own = urlsplit(settings.server.url).hostname
    for name, region in settings.regions.items():
        endpoint = region.public_endpoint or region.endpoint or ""
        if urlsplit(endpoint).hostname == own:
            yield (
                f"regions.{name} has the host name of server.public_url, so programs that read "
                "netrc send tokens to S3 too, which refuses such requests"
            )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
