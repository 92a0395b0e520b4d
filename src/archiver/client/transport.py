"""Sends requests to any server, directly or through the proxy that the environment names."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)

from archiver import __version__
from archiver.client.connection import CutOff, ending_at, limit_connections
from archiver.client.deadline import Deadline
from archiver.client.failures import InvalidUsage
from archiver.client.no_proxy import is_excluded
from archiver.client.text import hide_user_info, host, is_url

USER_AGENT = f"archiver-cli/{__version__}"
CONNECT_S = 10.0
SILENCE_S = 60.0
HOSTS_MAX = 16
CONNECTIONS_MAX = 32
"""Connections to one host that stay open between requests."""

CAUSES_MAX = 20

CREDENTIALS_WANTED = 407
TUNNEL_REFUSED = f"Tunnel connection failed: {CREDENTIALS_WANTED}"
"""How http.client begins the text of its error."""

DESCRIPTIONS: Mapping[type[BaseException], str] = {
    NameResolutionError: "its name does not resolve",
    ConnectTimeoutError: "timed out",
    ReadTimeoutError: "timed out",
    TimeoutError: "timed out",
    CutOff: "its response broke off",
    ssl.SSLCertVerificationError: "its certificate is not trusted",
    ssl.SSLError: "TLS failed",
}

NETWORK_ERRORS = (HTTPError, OSError, ValueError)
"""What urllib3 raises for a request that fails; ValueError is for a malformed response."""


class Transport:
    """Keeps connections open. Threads may share it.

    Redirects are not followed, and a request has no credentials but those in its headers.
    """

    def __init__(self) -> None:
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._opening = Lock()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()

    @contextmanager
    def get(
        self, url: str, headers: Mapping[str, str], deadline: Deadline, body: bytes | None = None
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a GET request, and yield the response, whose body was not read.

        With a *body*, it is a POST request.

        Also while the body is read, it raises the failure of the *deadline* at its end. Raises one
        of NETWORK_ERRORS, or InvalidUsage if the proxy is not one, or wants other credentials.
        """
        proxy = proxy_for(url)
        with ending_at(deadline), _explaining_refusal(url, proxy):
            response = self._pool(proxy).request(
                "GET" if body is None else "POST",
                url,
                body=body,
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers},
                timeout=urllib3.Timeout(connect=CONNECT_S, read=SILENCE_S),
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        try:
            if proxy and response.status == CREDENTIALS_WANTED:
                raise _refusal(url, proxy)
            yield response
        finally:
            response.close()  # with its connection, unless that was released at the body's end

    def _pool(self, proxy: str) -> urllib3.PoolManager:
        with self._opening:
            if proxy not in self._pools:
                self._pools[proxy] = _open_pool(proxy)
            return self._pools[proxy]


def proxy_for(url: str) -> str:
    """Return the URL of the proxy for *url*, as curl chooses it; empty for a direct connection.

    Raises InvalidUsage if it is no http or https URL.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or _is_direct(parts, proxies.get("no")):
        return ""
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not is_url(proxy):
        raise InvalidUsage(
            f"{hide_user_info(proxy)}, the proxy for {parts.scheme}, is no http or https URL"
        )
    return proxy


def _is_direct(url: SplitResult, no_proxy: str | None) -> bool:
    """Return whether no proxy is used for *url*. Without *no_proxy*, the system decides."""
    if no_proxy is None:
        return bool(proxy_bypass(url.netloc.rpartition("@")[2]))
    return is_excluded(url.hostname or "", no_proxy)


def _open_pool(proxy: str) -> urllib3.PoolManager:
    if not proxy:
        pool = urllib3.PoolManager(num_pools=HOSTS_MAX, maxsize=CONNECTIONS_MAX)
    else:
        parts = urlsplit(proxy)
        pool = urllib3.ProxyManager(
            parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
            num_pools=HOSTS_MAX,
            maxsize=CONNECTIONS_MAX,
            proxy_headers=_proxy_headers(parts),
        )
    limit_connections(pool)
    return pool


def _proxy_headers(proxy: SplitResult) -> Mapping[str, str] | None:
    if proxy.username is None:
        return None
    user = unquote_to_bytes(proxy.username) + b":" + unquote_to_bytes(proxy.password or "")
    return {"Proxy-Authorization": f"Basic {base64.b64encode(user).decode()}"}


@contextmanager
def _explaining_refusal(url: str, proxy: str) -> Iterator[None]:
    """Raise InvalidUsage if the proxy makes no tunnel without other credentials."""
    try:
        yield
    except ProxyError as exc:
        if str(exc.original_error).startswith(TUNNEL_REFUSED):
            raise _refusal(url, proxy) from exc
        raise


def _refusal(url: str, proxy: str) -> InvalidUsage:
    credentials = "other credentials" if "@" in urlsplit(proxy).netloc else "credentials"
    variable = f"{urlsplit(url).scheme}_proxy"
    return InvalidUsage(
        f"the proxy {host(proxy)} wants {credentials} ({CREDENTIALS_WANTED})",
        hint=f"Write them into {variable}: http://USER:PASSWORD@{host(proxy)}",
    )


def reason(exc: Exception) -> str:
    """Return why a request failed, to append to a sentence; empty if that is unknown.

    The words are ours, because those of libraries may quote secrets.
    """
    if isinstance(exc, ProxyError):
        return f": its proxy failed{reason(exc.original_error)}"
    return next((f": {why}" for cause in _causes(exc) if (why := _describe(cause))), "")


def _describe(cause: BaseException) -> str:
    if type(cause) is NewConnectionError:  # a kind of timeout to urllib3; its cause says more
        return ""
    for kind, description in DESCRIPTIONS.items():
        if isinstance(cause, kind):
            return description
    if isinstance(cause, OSError) and (cause.errno or 0) > 0:
        return os.strerror(cause.errno or 0)
    return ""


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield *exc* and the exceptions from which urllib3 made it."""
    waiting = [exc]
    for _ in range(CAUSES_MAX):
        if not waiting:
            return
        cause = waiting.pop(0)
        yield cause
        waiting += [each for each in cause.args if isinstance(each, BaseException)]
        waiting += [each for each in (cause.__cause__, cause.__context__) if each]
