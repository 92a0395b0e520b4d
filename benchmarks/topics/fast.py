"""How fast is Archiver when the host is faster? 1 GB, to two regions, beside each leg alone."""

from benchmarks.lab import Lab
from benchmarks.programs import need
from benchmarks.race import Row, Table, race
from benchmarks.rivals import download, pipe, upload_alone, verify_alone

VERIFICATION = "verification alone"
ARCHIVER = "**Archiver**, from the request to SUCCESS"
PIPE = "`rclone copyurl` to each region, then `gzip -t`, then `tar t`"


def measure(lab: Lab) -> list[Table]:
    need("curl", "gzip", "tar")
    archive = lab.inputs.get("1GB")
    with lab.host(archive) as host, lab.installation(host) as archiver:
        taken = race(
            {
                "the host alone (`curl -o /dev/null`)": lambda: download(host.url(archive)),
                VERIFICATION: lambda: verify_alone(archive),
                "upload alone, to both regions": lambda: upload_alone(archive, archiver.stack),
                ARCHIVER: lambda: archiver.store(archive),
                PIPE: lambda: pipe(host.url(archive), archiver.buckets),
            },
            rounds=lab.rounds,
            tidy=archiver.empty,
        )
    goals = {ARCHIVER: "≤ 1.25", PIPE: "more than Archiver"}
    rows = [Row(what=what, samples=s, goal=goals.get(what, "")) for what, s in taken.items()]
    return [Table(unit="s", rows=rows, base=VERIFICATION, digits=2)]
