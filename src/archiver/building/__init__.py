"""How an archive is made: fetched or converted, verified, uploaded, committed. See ``builder``."""
