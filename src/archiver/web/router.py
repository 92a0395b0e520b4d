"""From the path of a request to the route that handles it."""

from collections.abc import Sequence
from enum import Enum, auto

from starlette.convertors import PathConvertor
from starlette.routing import compile_path

from archiver.web.problems import Misdirected
from archiver.web.reply import Handler
from archiver.web.request_context import RequestContext
from archiver.web.request_target import TARGET_MAX_BYTES, decode

READ_METHODS = ("GET", "HEAD")


class Permission(Enum):
    """The right that a route needs. Handlers check the source and the repo themselves."""

    PUBLIC = auto()
    """Nothing. The response has nothing of sources and archives."""

    READ = auto()
    """The scope ``read`` for a source."""

    CREATE = auto()
    """The scope ``create`` for a source."""

    ADMIN = auto()
    """The scope ``admin`` for a source."""

    METRICS = auto()
    """The scope ``admin`` if a source is private, because the labels of metrics name it."""


class Route:
    """A path, its methods, its handler, who may request it, and whether replies may be repeated.

    A reply is repeated to the same principal only.

    ``{name}`` in a path is one segment, which the router decodes. ``{name:path}`` is all that
    follows, as it was sent: its handler splits it before decoding, so that ``%2F`` is no separator.
    """

    def __init__(
        self,
        path: str,
        handler: Handler,
        *,
        name: str,
        permission: Permission,
        methods: Sequence[str] = READ_METHODS,
        cacheable: bool = False,
    ) -> None:
        self.path, self.handler, self.name, self.cacheable = path, handler, name, cacheable
        self.permission, self.methods = permission, methods
        self.prefix, brace, _ = path.partition("{")
        self.has_parameters = bool(brace)
        self.pattern, _, convertors = compile_path(path)
        self.raw_parameters = {
            name for name, kind in convertors.items() if isinstance(kind, PathConvertor)
        }

    def begins(self, path: str) -> bool:
        """Return whether *path* begins as the path of this route."""
        return path.startswith(self.prefix) if self.has_parameters else path == self.path


class Router:
    """Finds routes. The longest literal prefix of a path decides; among its routes, the first.

    So ``/archiver/status/a/b`` is no route, and not an archive of the source ``status``. A route
    without parameters has its own path only: ``/archiver/tasks/a/b`` is an archive of ``tasks``.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = sorted(routes, key=lambda route: len(route.prefix), reverse=True)

    def resolve(self, context: RequestContext) -> Route:
        """Return the route of a request, and set ``context.route`` and ``context.parameters``.

        Raises Misdirected, and InvalidRequest if a parameter is badly encoded.
        """
        if len(context.raw_path) + len(context.query) > TARGET_MAX_BYTES:
            raise Misdirected("target_too_long", f"path and query exceed {TARGET_MAX_BYTES} bytes")
        path = context.raw_path.decode("latin-1")
        routes = self._find(path)
        context.route = routes[0].name
        route = _with_method(routes, context.method)
        context.route = route.name
        match = route.pattern.match(path)
        context.parameters = {
            name: text if name in route.raw_parameters else decode(text.encode("latin-1"), name)
            for name, text in (match.groupdict() if match else {}).items()
        }
        return route

    def _find(self, path: str) -> Sequence[Route]:
        """Return the routes of *path*, which differ in their methods."""
        prefix = next((each.prefix for each in self._routes if each.begins(path)), None)
        for first in self._routes:
            if first.prefix == prefix and first.pattern.match(path):
                return [route for route in self._routes if route.path == first.path]
        raise Misdirected("no_such_route", "nothing is served at this path")


def _with_method(routes: Sequence[Route], method: str) -> Route:
    for route in routes:
        if method in route.methods:
            return route
    allowed = ", ".join(method for route in routes for method in route.methods)
    raise Misdirected("method_not_allowed", f"the methods here are {allowed}", allow=allowed)
