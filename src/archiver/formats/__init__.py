"""What an archive looks like on the wire, and whether a stream is a whole one."""
