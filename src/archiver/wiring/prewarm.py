"""Puts together the rules of prewarming, and the webhooks that announce pushes."""

from collections.abc import Mapping, Sequence
from itertools import chain

from archiver.access.patterns import RepoFilter
from archiver.names import require_name
from archiver.prewarm.hook import Hook, HookKind
from archiver.prewarm.payloads import FindRepo
from archiver.prewarm.rules import PrewarmRule
from archiver.settings import Settings, SourceSettings
from archiver.sources.git.complete.submodule_url import RepoTemplate, parse_url


def prewarm_rules(settings: Settings) -> Sequence[PrewarmRule]:
    return tuple(each.rule(name) for name, each in settings.prewarm.items())


def create_hooks(settings: Settings) -> Mapping[str, Hook]:
    """Return the webhooks by name. Reads their secrets. Raises SettingsError."""
    return {
        name: Hook(
            name=name,
            kind=HookKind(each.kind),
            source=each.source,
            secrets=each.read_secrets(name),
            find_repo=repo_finder(settings.sources[each.source]),
        )
        for name, each in settings.hooks.items()
    }


def repo_finder(source: SourceSettings) -> FindRepo:
    """Return what finds the repo of a push: by a URL that the source serves, else by its name."""
    templates = [RepoTemplate(each, any_protocol=True) for each in _templates(source)]
    served = RepoFilter(allowed=source.repos, denied=source.repos_denied)

    def find_repo(full_name: str, urls: tuple[str, ...]) -> str:
        addresses = filter(None, map(parse_url, urls))
        found = chain.from_iterable(t.repos(a) for a in addresses for t in templates)
        return next(filter(served.accepts, found), None) or require_name(full_name, "repo")

    return find_repo


def _templates(source: SourceSettings) -> tuple[str, ...]:
    return (source.url_template, *source.submodule_urls) if source.kind == "git" else ()
