"""hgweb in Apache's mod_wsgi, as on hg.mozilla.org, from Debian's packages (`make clients`)."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.errors import NotPackable
from archiver.model import Completeness
from tests.broken_repositories import (
    DAMAGED,
    LATIN,
    ONLY_ZIP,
    LocalArchiver,
    archive_of,
    build_damaged,
    commit,
    names,
)
from tests.parts.hgweb import Hgweb, Mercurial, configured
from tests.parts.process import accepts, free_port, running

pytestmark = pytest.mark.programs

MODULES = Path("/usr/lib/apache2/modules")
APACHE = """\
ServerRoot {folder}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/error.log
User www-data
Group www-data
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
WSGISocketPrefix {folder}/wsgi
WSGIDaemonProcess hg processes=1 threads=2
WSGIProcessGroup hg
WSGIApplicationGroup %{{GLOBAL}}
WSGIScriptAlias / {folder}/hgweb.wsgi
<Location "/">
  Require all granted
</Location>
"""
SCRIPT = """\
from mercurial.hgweb import hgweb
application = hgweb({config!r})
"""


@pytest.fixture(scope="module")
def apache(mercurial: Mercurial) -> Iterator[Hgweb]:
    with tempfile.TemporaryDirectory(prefix="archiver-apache-") as name:
        folder = Path(name)  # pytest's folder is closed to other users
        folder.chmod(0o755)  # Apache's processes run as another user
        repositories, config = configured(folder)
        (folder / "hgweb.wsgi").write_text(SCRIPT.format(config=bytes(config)))
        port = free_port()
        settings = folder / "apache.conf"
        settings.write_text(APACHE.format(folder=folder, port=port, modules=MODULES))
        command = ["/usr/sbin/apache2", "-f", str(settings), "-D", "FOREGROUND"]
        # Python in Apache would take modules from a virtual environment on PATH.
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        with running(command, log=folder / "log", ready=lambda: accepts(port), env=env):
            yield Hgweb(port=port, folder=repositories, mercurial=mercurial)


@pytest.fixture
def local(apache: Hgweb, tmp_path: Path) -> LocalArchiver:
    return LocalArchiver(host=apache, folder=tmp_path)


def test_a_readable_zip_of_a_damaged_repository_is_rejected(local: LocalArchiver) -> None:
    sent, _ = build_damaged(local)

    assert sent[-1].endswith("a/f4.txt")


def test_a_readable_zip_without_the_names_beyond_utf_8_is_rejected(local: LocalArchiver) -> None:
    repository, node = commit(local.host, {"a": b"", LATIN: b"", "z": b""})

    sent = names(local.host.archive(repository.name, node, "zip"))
    with pytest.raises(NotPackable):
        asyncio.run(local.build(archive_of(repository, node, "zip"), ONLY_ZIP))

    assert sent[-1].endswith("/a")


def test_a_complete_zip_is_proven(local: LocalArchiver) -> None:
    repository, node = commit(local.host, DAMAGED)

    manifest = asyncio.run(local.build(archive_of(repository, node, "zip"), ONLY_ZIP))

    assert manifest.completeness is Completeness.PROVEN
