"""One nats-server with JetStream, on loopback."""

import json
from collections.abc import Mapping

from archiver.embedded.binaries import find_program
from archiver.embedded.child import Program
from archiver.embedded.data_folder import DataFolder, write_private
from archiver.embedded.local_ports import LOOPBACK
from archiver.embedded.probe import Probe, http_probe

USER = "archiver"


def nats_server(folder: DataFolder) -> tuple[Program, Mapping[str, str]]:
    """Return the server, and the environment variables that point Archiver to it.

    Raises:
        CannotServe: It is not installed.
    """
    port, password = folder.port("nats"), folder.secret("nats_password")
    monitor = folder.port("nats_monitor")
    store, config = folder.path / "nats", folder.path / "nats.conf"
    streams = store / "jetstream"  # nats-server creates its streams here

    def prepare() -> None:
        streams.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(config, _format_config(port, monitor, store=str(store), password=password))

    program = Program(
        name="nats",
        command=(str(find_program("nats-server")), "--config", str(config)),
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
        "ARCHIVER_ENGINE__USER": USER,
        "ARCHIVER_ENGINE__PASSWORD": password,
    }


def _format_config(port: int, monitor: int, *, store: str, password: str) -> str:
    """Return the configuration file. nats-server reads JSON strings as its own.

    Without ``sync_interval: always``, a power failure may lose two minutes of accepted tasks.
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
