"""obstore's clients for one bucket, each with its own timeouts, retries and signatures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from obstore.store import S3Store

from archiver import __version__
from archiver.storage.s3_errors import BLOCKED_PROXY

if TYPE_CHECKING:  # the others exist in obstore's stubs alone
    from obstore import GetResult
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

CONTROL_TIMEOUT = timedelta(seconds=3)
"""Timeout of a small request. It normally takes milliseconds, and a client may be waiting."""

BULK_TIMEOUT = timedelta(minutes=2)
"""How long an upload may wait for the acknowledgement of a part, and a download for its next bytes.
Four concurrent parts of 5 MiB need 180 kB/s."""

BULK_RETRY_TIMEOUT = timedelta(seconds=150)
"""A retry reuses the first signature, which S3 accepts for five minutes."""

DOWNLOAD_TIMEOUT = timedelta(hours=6)
"""Limit for one whole download, even if bytes keep coming."""

_PIECE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """A bucket's address and credentials.

    Without keys, they come from the environment, the container or the machine's role.
    ``virtual_hosted`` puts the bucket's name into the host name. ``ca_file`` adds authorities to
    those of the system.
    """

    bucket: str
    endpoint: str | None
    region: str
    access_key_id: str | None
    secret_access_key: str | None = field(repr=False)
    virtual_hosted: bool = False
    ca_file: Path | None = None

    @property
    def plain(self) -> bool:
        """Whether the connection is without TLS."""
        return self.endpoint is not None and self.endpoint.startswith("http:")


def bulk_store(settings: S3Settings) -> S3Store:
    """Return the client for archives, with long timeouts and retries."""
    return _store(
        settings,
        {"timeout": DOWNLOAD_TIMEOUT, "read_timeout": BULK_TIMEOUT},
        {"max_retries": 5, "retry_timeout": BULK_RETRY_TIMEOUT},
    )


def control_store(settings: S3Settings) -> S3Store:
    """Return the client for small requests, which fails fast if the region has problems."""
    return _store(settings, {"timeout": CONTROL_TIMEOUT}, {"max_retries": 1})


def signing_store(settings: S3Settings, target: str) -> S3Store:
    """Return a client that signs *target*, a path and query of the bucket, for any key.

    obstore appends the key to the endpoint, and signs the query in it. After a ``#`` the key
    becomes a fragment, which clients do not send.
    """
    config = _config(settings) | {
        "endpoint": f"{bucket_url(settings)}{target}#",
        "virtual_hosted_style_request": True,
    }
    return S3Store(
        settings.bucket,
        config=config,
        client_options={"allow_http": settings.plain, "connect_timeout": CONTROL_TIMEOUT},
        credential_provider=_static_keys(settings),
    )


async def read_at_most(response: "GetResult", max_bytes: int) -> bytes | None:
    """Return the object in *response*, or None if it is larger, whatever size was announced."""
    if response.meta["size"] > max_bytes:
        return None
    body = bytearray()
    async for chunk in response.stream(min_chunk_size=_PIECE_BYTES):
        body += chunk
        if len(body) > max_bytes:
            return None
    return bytes(body)


def proxy_url(settings: S3Settings) -> str | None:
    """Return the proxy that the environment sets for the bucket, as a URL for obstore."""
    url = urlsplit(bucket_url(settings))
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def bucket_url(settings: S3Settings) -> str:
    endpoint = settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"
    address = _with_bucket_host(endpoint, settings).rstrip("/")
    return address if settings.virtual_hosted else f"{address}/{settings.bucket}"


def _store(settings: S3Settings, client: "ClientConfig", retry: "RetryConfig") -> S3Store:
    return S3Store(
        settings.bucket,
        config=_config(settings),
        client_options={
            "allow_http": settings.plain,
            "connect_timeout": CONTROL_TIMEOUT,
            "user_agent": f"archiver/{__version__}",
            **_trusted_authorities(settings),
            **_without_redirects(settings),
            **client,
        },
        retry_config=retry,
        credential_provider=_static_keys(settings),
    )


def _trusted_authorities(settings: S3Settings) -> "ClientConfig":
    return {"root_certificate": settings.ca_file.read_bytes()} if settings.ca_file else {}


def _without_redirects(settings: S3Settings) -> "ClientConfig":
    """Return options that block requests to other hosts than the endpoint.

    obstore follows redirects to any host, and has no option against it. Redirects have to be
    followed in two cases: the credentials of a role come from other hosts, and in some networks the
    proxy of the environment is the only way out.
    """
    keys = settings.access_key_id and settings.secret_access_key
    if not settings.endpoint or not keys or proxy_url(settings):
        return {}
    host = urlsplit(bucket_url(settings)).hostname or ""
    return {"proxy_url": f"http://{BLOCKED_PROXY}", "proxy_excludes": host}


def _config(settings: S3Settings) -> "S3Config":
    config: S3Config = {
        "region": settings.region,
        "virtual_hosted_style_request": settings.virtual_hosted,
        "disable_bulk_delete": True,  # not every server supports it
    }
    if settings.endpoint:
        config["endpoint"] = _with_bucket_host(settings.endpoint, settings)
    if not settings.plain:  # TLS protects the bytes in transit, the checksum end to end
        config["unsigned_payload"] = True
        config["checksum_algorithm"] = "CRC64NVME"
    return config


def _with_bucket_host(endpoint: str, settings: S3Settings) -> str:
    url = urlsplit(endpoint)
    host = f"{settings.bucket}.{url.netloc}" if settings.virtual_hosted else url.netloc
    return url._replace(netloc=host).geturl()


def _static_keys(settings: S3Settings) -> "Callable[[], S3Credential] | None":
    """Return a provider of the configured keys, without a session token; None without keys.

    obstore would send keys from its options together with ``AWS_SESSION_TOKEN`` of the
    environment.
    """
    if settings.access_key_id is None or settings.secret_access_key is None:
        return None
    credential: S3Credential = {
        "access_key_id": settings.access_key_id,
        "secret_access_key": settings.secret_access_key,
        "token": None,
        "expires_at": None,
    }
    return lambda: credential
