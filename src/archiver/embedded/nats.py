"""One nats-server with JetStream, on loopback."""

import json
from collections.abc import Mapping

from archiver.embedded import binaries
from archiver.embedded.child import Part
from archiver.embedded.folder import LOOPBACK, DataFolder, write_private
from archiver.embedded.probe import Probe, http

USER = "archiver"


def nats(folder: DataFolder) -> tuple[Part, Mapping[str, str]]:
    """Return the server, and the environment that leads Archiver to it.

    Raises:
        CannotServe: It is not installed.
    """
    port, password = folder.port("nats"), folder.secret("nats_password")
    monitor = folder.port("nats_monitor")
    store, config = folder.path / "nats", folder.path / "nats.conf"
    streams = store / "jetstream"  # where nats-server puts them; if that goes, so do they

    def prepare() -> None:
        streams.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(config, _config(port, monitor, store=str(store), password=password))

    part = Part(
        name="nats",
        command=(str(binaries.find("nats-server")), "--config", str(config)),
        prepare=prepare,
        ready=Probe(host=LOOPBACK, port=port, expect=b"INFO {"),
        # After a write that failed, as on a full disk, a stream takes no other until a new start.
        broken=http(LOOPBACK, monitor, "/healthz", expect=b" 503 "),
        folder=streams,
        inherits=(folder.lock,),
        log=folder.log("nats"),
    )
    return part, {
        "ARCHIVER_ENGINE__URL": f"nats://{LOOPBACK}:{port}",
        "ARCHIVER_ENGINE__USER": USER,
        "ARCHIVER_ENGINE__PASSWORD": password,
    }


def _config(port: int, monitor: int, *, store: str, password: str) -> str:
    """Write what nats-server reads: near enough to JSON that JSON's quotes serve.

    Without ``sync_interval: always`` a loss of power may lose two minutes of accepted tasks.
    """
    return f"""\
listen: "{LOOPBACK}:{port}"
http: "{LOOPBACK}:{monitor}"
jetstream {{
  store_dir: {json.dumps(store)}
  sync_interval: always
}}
authorization {{
  user: {json.dumps(USER)}
  password: {json.dumps(password)}
}}
"""
