"""obstore's clients of one bucket: how each signs, waits and tries again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from obstore.store import S3Store

from archiver import __version__
from archiver.storage.s3_errors import NOWHERE

if TYPE_CHECKING:  # they exist in obstore's stubs alone
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Credential

CONTROL_TIMEOUT = timedelta(seconds=3)
"""Of a manifest, a HEAD, a delete: they take milliseconds, and a client may be waiting."""

BULK_TIMEOUT = timedelta(minutes=2)
"""Of silence: until a part of an upload is acknowledged, or the next bytes of a download come.
Four parts of 5 MiB at a time need 180 kB/s."""

BULK_RETRY_TIMEOUT = timedelta(seconds=150)
"""A retry carries the first signature, which S3 takes for five minutes."""

DOWNLOAD_TIMEOUT = timedelta(hours=6)
"""Of one whole download, however lively."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Where a bucket is, and who asks. Without keys, the environment or the machine provides them.

    ``virtual_hosted`` tells whether the bucket's name is part of the host's. ``ca_file`` holds
    authorities to trust besides the system's.
    """

    bucket: str
    endpoint: str | None
    region: str
    access_key_id: str | None
    secret_access_key: str | None = field(repr=False)
    virtual_hosted: bool
    ca_file: Path | None = None

    @property
    def plain(self) -> bool:
        """Whether the bytes travel without TLS."""
        return self.endpoint is not None and self.endpoint.startswith("http:")


def bulk_store(settings: S3Settings) -> S3Store:
    """Return the client for the archives themselves, which is patient."""
    return _store(
        settings,
        {"timeout": DOWNLOAD_TIMEOUT, "read_timeout": BULK_TIMEOUT},
        {"max_retries": 5, "retry_timeout": BULK_RETRY_TIMEOUT},
    )


def control_store(settings: S3Settings) -> S3Store:
    """Return the client for all that is small, with which a sick region fails fast."""
    return _store(settings, {"timeout": CONTROL_TIMEOUT}, {"max_retries": 1})


def signing_store(settings: S3Settings, target: str) -> S3Store:
    """Return what signs *target* of the bucket, a path and a query, whatever is asked for by key.

    obstore appends the key to the endpoint and signs whatever query is in it. Behind a ``#`` the
    key is a fragment, which no client sends.
    """
    config = _config(settings) | {
        "endpoint": f"{_bucket_url(settings)}{target}#",
        "virtual_hosted_style_request": True,
    }
    return S3Store(
        settings.bucket,
        config=config,
        client_options={"allow_http": settings.plain, "connect_timeout": CONTROL_TIMEOUT},
        credential_provider=_static_keys(settings),
    )


def proxy_of(settings: S3Settings) -> str | None:
    """Return the proxy that the environment names for the bucket, as obstore takes it."""
    url = urlsplit(_bucket_url(settings))
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _bucket_url(settings: S3Settings) -> str:
    endpoint = settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"
    address = _address(endpoint, settings).rstrip("/")
    return address if settings.virtual_hosted else f"{address}/{settings.bucket}"


def _store(settings: S3Settings, client: "ClientConfig", retry: "RetryConfig") -> S3Store:
    return S3Store(
        settings.bucket,
        config=_config(settings),
        client_options={
            "allow_http": settings.plain,
            "connect_timeout": CONTROL_TIMEOUT,
            "user_agent": f"archiver/{__version__}",
            **_authorities(settings),
            **_without_redirects(settings),
            **client,
        },
        retry_config=retry,
        credential_provider=_static_keys(settings),
    )


def _authorities(settings: S3Settings) -> "ClientConfig":
    return {"root_certificate": settings.ca_file.read_bytes()} if settings.ca_file else {}


def _without_redirects(settings: S3Settings) -> "ClientConfig":
    """Return what sends requests for other hosts than the endpoint's to where nothing listens.

    obstore follows redirects to any host, and has no option that forbids it. A credential of a role
    comes from other hosts, and a proxy that the environment names is the only way out of some
    networks: there, redirects are followed.
    """
    keys = settings.access_key_id and settings.secret_access_key
    if not settings.endpoint or not keys or proxy_of(settings):
        return {}
    host = urlsplit(_bucket_url(settings)).hostname or ""
    return {"proxy_url": f"http://{NOWHERE}", "proxy_excludes": host}


def _config(settings: S3Settings) -> "S3Config":
    config: S3Config = {
        "region": settings.region,
        "virtual_hosted_style_request": settings.virtual_hosted,
        "disable_bulk_delete": True,  # not every server understands it
    }
    if settings.endpoint:
        config["endpoint"] = _address(settings.endpoint, settings)
    if not settings.plain:  # TLS guards the bytes on their way, the checksum at its end
        config["unsigned_payload"] = True
        config["checksum_algorithm"] = "CRC64NVME"
    return config


def _address(endpoint: str, settings: S3Settings) -> str:
    url = urlsplit(endpoint)
    host = f"{settings.bucket}.{url.netloc}" if settings.virtual_hosted else url.netloc
    return url._replace(netloc=host).geturl()


def _static_keys(settings: S3Settings) -> "Callable[[], S3Credential] | None":
    """Return who hands out the configured keys and no session token, if keys are configured.

    Keys given as they are would be sent with the ``AWS_SESSION_TOKEN`` of whoever's environment.
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
