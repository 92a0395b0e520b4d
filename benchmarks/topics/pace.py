"""Does Archiver keep pace with a real host? 1 GB at 30 MB/s, to two regions."""

from benchmarks.lab import Lab
from benchmarks.programs import need
from benchmarks.race import Row, Table, race
from benchmarks.rivals import copy_url, download, download_then_upload

RATE = 30e6
"""Bytes per second. The fastest measured hgweb, limited by zlib's level 9 on one core."""

HOST = "the host alone"
ARCHIVER = "**Archiver**, from the request to SUCCESS"
SDK = "`curl` to a file, then the AWS SDK's `upload_file` to each region"
COPYURL = "`rclone copyurl`, once per region"


def measure(lab: Lab) -> list[Table]:
    need("curl")
    archive = lab.inputs.get("1GB")
    spool = lab.folder / "spool"
    with lab.host(archive, rate=RATE) as host, lab.installation(host) as archiver:
        buckets = archiver.buckets
        taken = race(
            {
                HOST: lambda: download(host.url(archive)),
                ARCHIVER: lambda: archiver.store(archive),
                SDK: lambda: download_then_upload(host.url(archive), buckets, spool),
                COPYURL: lambda: copy_url(host.url(archive), buckets),
            },
            rounds=lab.rounds,
            tidy=archiver.empty,
        )
    goals = {ARCHIVER: "≤ 1.03"}
    rows = [Row(what=what, samples=s, goal=goals.get(what, "")) for what, s in taken.items()]
    return [Table(unit="s", rows=rows, base=HOST, digits=2)]
