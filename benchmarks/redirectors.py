"""Starts servers to compare Archiver with: each sends one constant redirect."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import which

from benchmarks.lab import Bucket
from benchmarks.pinning import SERVER, on
from tests.parts.process import accepts, free_port, running
from tests.system.client import Answer

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err;
events {{}}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location / {{ return 302 "{url}"; }}
    }}
}}
"""

OF_THE_SERVER = frozenset({"date", "server", "connection", "transfer-encoding"})


@contextmanager
def constant(answer: Answer, folder: Path) -> Iterator[str]:
    """Yield the URL of Archiver's server with an application that always sends *answer*."""
    headers = [pair for pair in answer.headers.items() if pair[0].lower() not in OF_THE_SERVER]
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.constant", f"127.0.0.1:{port}"]
    response = {"status": answer.status, "headers": headers, "body": answer.body.decode()}
    env = {"BENCH_ANSWER": json.dumps(response)}
    with _started(command, port, folder / "constant.log", env=env) as url:
        yield url


@contextmanager
def nginx(answer: Answer, folder: Path) -> Iterator[str]:
    """Yield the URL of an nginx that sends the redirect of *answer*."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, url=answer.location))
    command = [which("nginx") or "nginx", "-e", str(folder / "nginx.err"), "-c", str(config)]
    with _started(command, port, folder / "nginx.log") as url:
        yield url


@contextmanager
def original(bucket: Bucket, key: str, folder: Path) -> Iterator[str]:
    """Yield the URL of a server with the original's algorithm, for one object in *bucket*."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--workers", "1", "--log-level", "error"]
    command += ["--bind", f"127.0.0.1:{port}", "benchmarks.original:create_app()"]
    client = {
        "endpoint_url": bucket.endpoint,
        "region_name": bucket.region,
        "aws_access_key_id": bucket.access_key_id,
        "aws_secret_access_key": bucket.secret_access_key,
    }
    env = {"BENCH_BUCKET": json.dumps({**client, "bucket": bucket.bucket, "key": key})}
    with _started(command, port, folder / "original.log", env=env) as url:
        yield url


@contextmanager
def _started(
    command: Sequence[str], port: int, log: Path, *, env: dict[str, str] | None = None
) -> Iterator[str]:
    """Yield the URL of a server that is pinned to the server's core."""
    with ExitStack() as stack:
        with on(SERVER):
            stack.enter_context(running(command, log=log, ready=lambda: accepts(port), env=env))
        yield f"http://127.0.0.1:{port}"
