"""What is in the buckets, as seen from outside: laws 1, 2 and 5."""

import hashlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.faults.region import S3Region

SAMPLE = 12
"""Archives of earlier rounds whose bytes are read again in each round."""

Manifests = dict[str, dict[str, bytes]]
"""The bytes of each manifest, by its key and the region's name."""


@dataclass(slots=True)
class Buckets:
    """Remembers every archive since it was first seen. ``sha256s`` are by key."""

    regions: list[S3Region]
    chance: random.Random
    sha256s: dict[str, str] = field(default_factory=dict)
    _objects: dict[str, str] = field(default_factory=dict)
    _read: set[tuple[str, str]] = field(default_factory=set)
    not_whole: int = 0

    def manifest_keys(self) -> dict[str, set[str]]:
        """Return the keys of all manifests by region."""
        return {region.name: set(region.keys("manifests/")) for region in self.regions}

    def lacking(self) -> list[str]:
        """Return the keys of the manifests that some region lacks."""
        keys = list(self.manifest_keys().values())
        first, *others = keys
        return sorted(first.union(*others) - first.intersection(*others))

    def check(self, *, everything: bool = False) -> Iterator[tuple[int, str]]:
        """Read what is new, and some or all of what is known; yield each law with its breach."""
        there = self.manifest_keys()
        wanted = [
            (region, key)
            for region in self.regions
            for key in sorted(there[region.name])
            if everything or (region.name, key) not in self._read
        ]
        known = [(r, k) for r in self.regions for n, k in sorted(self._read) if n == r.name]
        wanted += self.chance.sample(known, min(SAMPLE, len(known)))
        for name, key in sorted(self._read):
            if key not in there[name]:
                yield 2, f"the manifest {key} has vanished from {name}"
        with ThreadPoolExecutor(4) as pool:
            for found in pool.map(lambda one: list(self._check_one(*one)), wanted):
                yield from found

    def _check_one(self, region: S3Region, key: str) -> Iterator[tuple[int, str]]:
        body = region.read(key)
        if body is None:
            yield 2, f"the manifest {key} has vanished from {region.name}"
            return
        manifest: dict[str, Any] = json.loads(body)
        self._read.add((region.name, key))
        archive = key.removeprefix("manifests/").removesuffix(".json")
        sha256 = str(manifest["sha256"])
        if self.sha256s.setdefault(archive, sha256) != sha256:
            yield 2, f"{archive} has other bytes in {region.name} or at another time"
        if manifest["key"] != archive:
            yield 5, f"the manifest {key} is of {manifest['key']}"
        object_key = str(manifest["object_key"])
        if self._objects.setdefault(object_key, archive) != archive:
            yield 5, f"{archive} and {self._objects[object_key]} share an object"
        stored = region.read(object_key)
        if stored is None or hashlib.sha256(stored).hexdigest() != sha256:
            self.not_whole += 1
            size = "no" if stored is None else len(stored)
            yield 1, f"{archive} is visible in {region.name} with {size} bytes"

    def orphans(self) -> int:
        """Return how many objects no manifest names."""
        named = set(self._objects)
        return sum(key not in named for region in self.regions for key in region.keys("archives/"))

    def unfinished(self) -> int:
        """Return how many multipart uploads were neither completed nor aborted."""
        return sum(len(region.unfinished()) for region in self.regions)
