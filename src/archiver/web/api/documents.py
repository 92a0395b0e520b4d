"""``/openapi.json`` and ``/robots.txt``."""

import json
from importlib import resources

from starlette.responses import JSONResponse, PlainTextResponse

from archiver import __version__
from archiver.web.reply import Reply
from archiver.web.request_context import RequestContext


async def robots(_context: RequestContext) -> Reply:
    """Keep crawlers out: by following archive links, they have filled the disks of many forges."""
    return Reply(response=PlainTextResponse("User-agent: *\nDisallow: /\n"))


async def openapi(context: RequestContext) -> Reply:
    document = json.loads(resources.files("archiver.web").joinpath("openapi.json").read_bytes())
    document["info"]["version"] = __version__
    document["servers"] = [{"url": context.state.config.public_url}]
    return Reply(response=JSONResponse(document))
