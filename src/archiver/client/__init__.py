"""A client of Archiver's public HTTP interface: locate, wait, download, verify."""
