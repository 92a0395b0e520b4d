"""``archiver doctor`` on a machine whose clock is wrong, and a server that checks signatures."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from archiver.diagnosis.finding import Level
from tests.diagnosis.diagnosing import REGION, region_settings
from tests.parts.json_output import documents
from tests.parts.nats import Nats
from tests.parts.s3 import Home

pytestmark = pytest.mark.programs


@pytest.mark.parametrize(
    ("offset", "level", "found"),
    (
        ("-40m", Level.FAILED, "the server's clock is 40 min ahead of that of this machine"),
        ("+40m", Level.FAILED, "the server's clock is 40 min behind that of this machine"),
        ("+5m", Level.WARNING, "the server's clock is 5 min behind that of this machine"),
    ),
)
def test_a_wrong_clock_of_this_machine(
    tmp_path: Path, home: Home, nats: Nats, offset: str, level: Level, found: str
) -> None:
    region = region_settings(home)["regions"][REGION]
    table = "\n".join(f'{name} = "{value}"' for name, value in region.items())
    (tmp_path / "archiver.toml").write_text(
        f'data_dir = "{tmp_path}"\n[engine]\nurl = "{nats.url}"\n[regions.{REGION}]\n{table}\n'
        '[sources.hgmo]\nurl_template = "http://127.0.0.1:1/{repo}/{rev}.{suffix}/{subdir}"\n'
    )
    faketime = shutil.which("faketime")
    assert faketime
    examined = subprocess.run(
        [faketime, "-f", offset, sys.executable, "-m", "archiver", "doctor", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    (clock,) = (
        line for line in documents(examined.stdout) if line.get("check") == f"region.{REGION}.clock"
    )
    assert clock["level"] == level
    assert clock["found"].startswith(found)
    assert "NTP" in clock["action"]
