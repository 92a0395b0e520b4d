"""How fast is Archiver when the host is faster? 1 GB to two regions, and each step alone."""

from benchmarks.lab import Lab
from benchmarks.programs import need
from benchmarks.race import Row, Table, race
from benchmarks.rivals import download, pipe, upload_alone, verify_alone

HOST = "the host alone (`curl -o /dev/null`)"
VERIFICATION = "verification alone"
UPLOAD = "upload alone, regions far away"
UPLOAD_HERE = "upload alone, regions on these cores"
ARCHIVER = "**Archiver**, regions far away"
ARCHIVER_HERE = "**Archiver**, regions on these cores"
PIPE_HERE = "`rclone copyurl` to each region on these cores, then `gzip -t`, then `tar t`"

GOALS = {ARCHIVER: "≤ 1.25", ARCHIVER_HERE: "≤ 1.25", PIPE_HERE: "more than Archiver"}


def measure(lab: Lab) -> list[Table]:
    need("curl", "gzip", "tar")
    archive = lab.inputs.get("1GB")
    with (
        lab.host(archive) as host,
        lab.installation(host) as here,
        lab.faraway() as settings,
        lab.installation(host, settings) as away,
    ):
        taken = race(
            {
                HOST: lambda: download(host.url(archive)),
                VERIFICATION: lambda: verify_alone(archive),
                UPLOAD: lambda: upload_alone(archive, away.stack),
                ARCHIVER: lambda: away.store(archive),
                UPLOAD_HERE: lambda: upload_alone(archive, here.stack),
                ARCHIVER_HERE: lambda: here.store(archive),
                PIPE_HERE: lambda: pipe(host.url(archive), here.buckets),
            },
            rounds=lab.rounds,
            tidy=here.empty,
        )
    rows = [Row(what=what, samples=s, goal=GOALS.get(what, "")) for what, s in taken.items()]
    return [Table(unit="s", rows=rows, base=VERIFICATION, digits=2)]
