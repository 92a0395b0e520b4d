"""The settings files in ``deploy/``, with the secrets that they name."""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.deploy.files import DEPLOY, manifest

SECRETS = ("nats-password", "s3-access-key-id", "s3-secret-key")


def compose_settings(folder: Path) -> str:
    """Return the settings of compose.yaml, with secrets that its script made in *folder*."""
    shutil.copy(DEPLOY / "compose" / "make-secrets", folder)
    subprocess.run(["/bin/sh", folder / "make-secrets"], check=True)
    secrets = folder / "secrets"
    (secrets / "s3-secret-key").write_text((secrets / "s3-worker").read_text())
    text = (DEPLOY / "compose" / "archiver.toml").read_text()
    return text.replace("/run/secrets/", f"{secrets}/")


def systemd_settings(folder: Path) -> str:
    """Return the settings of the units, whose secrets are in their working directory, *folder*."""
    _write_secrets(folder)
    return (DEPLOY / "systemd" / "archiver.toml").read_text()


def kubernetes_settings(folder: Path) -> str:
    """Return the settings of the pods, with secrets in *folder*."""
    _write_secrets(folder)
    text: str = manifest("ConfigMap", "archiver")["data"]["archiver.toml"]
    return text.replace("/run/secrets/archiver/", f"{folder}/")


def _write_secrets(folder: Path) -> None:
    for name in SECRETS:
        (folder / name).write_text("swordfish\n")


WRITERS: Mapping[str, Callable[[Path], str]] = {
    "compose": compose_settings,
    "systemd": systemd_settings,
    "kubernetes": kubernetes_settings,
}

IMAGE = {"ARCHIVER_SERVER__LISTEN": "0.0.0.0:8010"}
"""The settings that `compose` and `kubernetes` leave to the image."""
