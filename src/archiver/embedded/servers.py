"""The embedded servers on loopback: one nats-server with JetStream, and one S3 server per region.

The S3 server is ``rclone serve s3``, which stores plain files.
"""

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial

from archiver.embedded.data_folder import DataFolder, write_private
from archiver.embedded.local_ports import LOOPBACK
from archiver.embedded.program import Probe, Program, find_program, http_probe

NATS_USER = "archiver"
ACCESS_KEY_ID = "archiver"

DIR_CACHE_TIME = "5s"
"""How long rclone caches a directory listing. For a file deleted by hand within this time, it
announces a body and then cuts it off."""


EMBEDDED_REGIONS = ("us-east-1", "us-west-2")


def nats_server(folder: DataFolder) -> tuple[Program, Mapping[str, str]]:
    """Return the server, and the environment variables that point Archiver to it."""
    port, password = folder.port("nats"), folder.secret("nats_password")
    monitor = folder.port("nats_monitor")
    store, path = folder.path / "nats", folder.path / "nats.conf"
    streams = store / "jetstream"  # nats-server creates its streams here

    config = {  # nats-server reads JSON
        "listen": f"{LOOPBACK}:{port}",
        "http": f"{LOOPBACK}:{monitor}",
        # Without "always", a power failure may lose two minutes of accepted tasks.
        # Without a limit of its own, the server would derive one from the disk that is free now.
        "jetstream": {
            "store_dir": str(store),
            "sync_interval": "always",
            "max_file_store": shutil.disk_usage(folder.path).total,
        },
        "authorization": {"user": NATS_USER, "password": password},
    }

    def prepare() -> None:
        streams.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps(config, indent=2))

    program = Program(
        name="nats",
        command=(str(find_program("nats-server")), "--config", str(path)),
        prepare=prepare,
        ready=Probe(host=LOOPBACK, port=port, expect=b"INFO {"),
        # After a failed write, as on a full disk, a stream stores nothing until a restart.
        broken=http_probe(LOOPBACK, monitor, "/healthz", expect=b" 503 "),
        folder=streams,
        inherits=(folder.lock,),
        log=folder.create_log("nats"),
    )
    return program, {
        "ARCHIVER_ENGINE__URL": f"nats://{LOOPBACK}:{port}",
        "ARCHIVER_ENGINE__USER": NATS_USER,
        "ARCHIVER_ENGINE__PASSWORD": password,
    }


def s3_servers(folder: DataFolder) -> tuple[list[Program], Mapping[str, str]]:
    """Return one server per region, and the environment variables that point Archiver to them."""
    ports = {region: folder.port(f"s3-{region}") for region in EMBEDDED_REGIONS}
    secret = folder.secret("s3_secret_access_key")
    settings = {
        region: {
            "bucket": _bucket(region),
            "endpoint": f"http://{LOOPBACK}:{port}",
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": secret,
        }
        for region, port in ports.items()
    }
    programs = [_s3_server(folder, region, port, secret) for region, port in ports.items()]
    return programs, {"ARCHIVER_REGIONS": json.dumps(settings), "NO_PROXY": no_proxy()}


def _bucket(region: str) -> str:
    return f"archiver-{region}"


def no_proxy() -> str:
    """Return NO_PROXY with loopback added."""
    before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    return f"{before},{LOOPBACK}" if before else LOOPBACK


def _s3_server(folder: DataFolder, region: str, port: int, secret: str) -> Program:
    root = folder.path / "s3" / region
    bucket = root / _bucket(region)
    return Program(
        name=f"s3-{region}",
        command=(
            str(find_program("rclone")),
            *("serve", "s3", "--config", os.devnull),
            *("--addr", f"{LOOPBACK}:{port}"),
            *("--etag-hash", ""),  # otherwise HEAD reads the whole file
            "--no-checksum",  # otherwise GET hashes the file while it sends it
            *("--dir-cache-time", DIR_CACHE_TIME),
            str(root),
        ),
        # The value is CSV, so it has quotes. As an argument, other users could read it.
        env={"RCLONE_AUTH_KEY": f'"{ACCESS_KEY_ID},{secret}"'},
        prepare=partial(bucket.mkdir, mode=0o700, parents=True, exist_ok=True),
        ready=http_probe(LOOPBACK, port, "/", expect=b"HTTP/1.1 "),
        folder=bucket,
        log=folder.create_log(f"s3-{region}"),
    )
