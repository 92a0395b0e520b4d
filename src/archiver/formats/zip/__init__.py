"""The zip format: records, a strict stream reader, a file reader and a deterministic writer."""
