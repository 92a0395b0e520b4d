"""The files in ``deploy/``, as the programs that use them read them."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import click
import yaml

from archiver.cli import main

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

COMMANDS = frozenset(main.list_commands(click.Context(main)))
"""The commands of the program."""


def read(name: str) -> str:
    return (DEPLOY / name).read_text()


def read_json(name: str) -> Any:  # noqa: ANN401 - it is JSON
    return json.loads(read(name))


def read_yaml(name: str) -> Any:  # noqa: ANN401 - it is YAML
    return yaml.safe_load(read(name))


def manifests() -> list[dict[str, Any]]:
    """Return all objects that the manifests of Kubernetes describe."""
    found = []
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        found += [each for each in yaml.safe_load_all(path.read_text()) if "metadata" in each]
    return found


def manifest(kind: str, name: str) -> dict[str, Any]:
    (found,) = [
        each for each in manifests() if (each["kind"], each["metadata"].get("name")) == (kind, name)
    ]
    return found


def unit(name: str) -> dict[str, list[str]]:
    """Return the values of each setting in ``[Service]`` of a unit of systemd."""
    section = re.split(r"^\[(\w+)\]$", read(f"systemd/{name}"), flags=re.MULTILINE)
    lines = section[section.index("Service") + 1].splitlines()
    values: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line and not line.startswith("#"):
            setting, _, value = line.partition("=")
            values[setting].append(value)
    return dict(values)
