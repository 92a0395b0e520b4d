"""The servers and processes of `archiver serve`: started, kept running and stopped in order."""
