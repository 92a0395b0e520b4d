"""Everything that Archiver needs from the world: a port per file, and the values it exchanges."""
