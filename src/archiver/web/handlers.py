"""From a request for an archive to its handler, with none of a framework's layers between."""

from collections.abc import Sequence

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from archiver.errors import ArchiverError
from archiver.web import problems
from archiver.web.targets import take_literally


class Handlers:
    """The first of *routes* whose path matches answers, as the framework would have it."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        take_literally(scope)
        request = Request(scope, receive)
        try:
            response = await self._route(scope).endpoint(request)
        except (ArchiverError, HTTPException) as exc:
            response = await problems.answer(request, exc)
        await response(scope, receive, send)

    def _route(self, scope: Scope) -> Route:
        for route in self._routes:
            if match := route.path_regex.match(scope["path"]):
                scope["route"], scope["path_params"] = route, match.groupdict()
                if scope["method"] not in (route.methods or ()):
                    raise HTTPException(405)
                return route
        raise HTTPException(404)
