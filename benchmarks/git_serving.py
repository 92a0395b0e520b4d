"""A git host: nginx with ``git http-backend`` for fetches, and cgit for its own archives."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template

from benchmarks.git_repository import GitRepository
from benchmarks.lab import next_run
from benchmarks.programs import MissingProgram
from tests.parts.process import accepts, free_port, running, stop, wait_until

CGIT = Path("/usr/lib/cgit/cgit.cgi")
"""Where Debian's package has it."""

PROCESSES = 4
"""Scripts that the host runs at a time."""

_NGINX = Template("""
daemon off;
master_process off;
pid $folder/nginx.pid;
error_log $folder/error.log;
events {}
http {
    log_format sizes '$$request_length $$bytes_sent $$status $$uri';
    access_log $folder/access.log sizes;
    client_body_temp_path $folder/body;
    fastcgi_temp_path $folder/fastcgi;
    proxy_temp_path $folder/proxy;
    scgi_temp_path $folder/scgi;
    uwsgi_temp_path $folder/uwsgi;
    fastcgi_read_timeout 1h;
    server {
        listen 127.0.0.1:$port;
        location ~ ^/git/[^/]+(?<script>/.*)$$ {
            fastcgi_param SCRIPT_FILENAME $git_http_backend;
            fastcgi_param GIT_PROJECT_ROOT $projects;
            fastcgi_param GIT_HTTP_EXPORT_ALL 1;
            fastcgi_param GIT_PROTOCOL $$http_git_protocol;
            include $folder/cgi.conf;
        }
        location ~ ^/cgit(?<script>/.*)$$ {
            fastcgi_param SCRIPT_FILENAME $cgit;
            fastcgi_param CGIT_CONFIG $folder/cgitrc;
            include $folder/cgi.conf;
        }
    }
}
""")

_CGI = Template("""
fastcgi_param QUERY_STRING $$query_string;
fastcgi_param REQUEST_METHOD $$request_method;
fastcgi_param CONTENT_TYPE $$content_type;
fastcgi_param CONTENT_LENGTH $$content_length;
fastcgi_param SERVER_PROTOCOL $$server_protocol;
fastcgi_param PATH_INFO $$script;
fastcgi_pass unix:$folder/scripts;
""")

_CGIT = Template("""
cache-size=0
snapshots=tar.gz
repo.url=$name
repo.path=$path
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitServer:
    """A running host. ``{repo}`` may be ``ANYTHING/NAME`` for its repository NAME."""

    address: str
    name: str
    log: Path

    @property
    def template(self) -> str:
        return f"{self.address}/git/{{repo}}.git"

    def new_repo(self) -> str:
        """Return the name of a repository that is new to Archiver."""
        return f"{next_run()}/{self.name}"

    def snapshot(self, node: str) -> str:
        """Return the URL of the host's own archive."""
        return f"{self.address}/cgit/{self.name}/snapshot/{self.name}-{node}.tar.gz"

    def transferred(self, beginning: str) -> int:
        """Return the bytes of all requests and responses at URLs with this *beginning* of a path.

        Nginx writes a line once a response is complete.
        """
        lines = [line.split(" ", 3) for line in self.log.read_text().splitlines()]
        return sum(
            int(request) + int(response)
            for request, response, _, path in lines
            if path.startswith(beginning)
        )


@contextmanager
def serving(repository: GitRepository, folder: Path) -> Iterator[GitServer]:
    """Serve *repository*. *folder* is for the servers' files, and must exist."""
    if not CGIT.exists():
        raise MissingProgram("not installed: cgit (apt-get install it)")
    port, name = free_port(), repository.path.stem
    places = {"folder": folder, "port": port, "cgit": CGIT, "projects": repository.path.parent}
    places["git_http_backend"] = Path(repository.git("--exec-path").strip()) / "git-http-backend"
    (folder / "nginx.conf").write_text(_NGINX.substitute(places))
    (folder / "cgi.conf").write_text(_CGI.substitute(places))
    (folder / "cgitrc").write_text(_CGIT.substitute(name=name, path=repository.path))
    nginx: list[str | Path] = [
        "nginx",
        "-p",
        folder,
        "-e",
        folder / "error.log",
        "-c",
        folder / "nginx.conf",
    ]
    with (
        _scripts(folder / "scripts", folder / "scripts.log"),
        running(nginx, log=folder / "nginx.log", ready=lambda: accepts(port)),
    ):
        yield GitServer(address=f"http://127.0.0.1:{port}", name=name, log=folder / "access.log")


def _program(name: str) -> str:
    """Return the path of a server, which few users have on their PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if not found:
        raise MissingProgram(f"not installed: {name} (apt-get install it)")
    return found


@contextmanager
def _scripts(socket: Path, log: Path) -> Iterator[None]:
    """Run the server that starts scripts. It ends with its process group, which is its own."""
    command = [_program("fcgiwrap"), "-c", str(PROCESSES), "-s", f"unix:{socket}"]
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            wait_until(socket.exists, what="the start of fcgiwrap")
            socket.chmod(0o600)
            yield
        finally:
            stop(process)
            with suppress(ProcessLookupError):  # its children may wait for a last request
                os.killpg(process.pid, signal.SIGKILL)
