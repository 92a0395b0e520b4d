"""Tasks, threads, caches and notifications inside one process. Nothing here knows an archive."""
