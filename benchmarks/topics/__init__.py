"""One module per question: ``measure(lab)`` returns the tables that answer it.

To add one: its module here, its name in ``TOPICS``, a place for its tables in docs/benchmarks.md.
"""

TOPICS = (
    "pace",
    "fast",
    "conversions",
    "resources",
    "latency",
    "throughput",
    "hits",
    "herd",
    "waiting",
    "busy",
    "index_size",
)
"""In the order of the document. Each is imported when it is asked for: not all need the same."""
