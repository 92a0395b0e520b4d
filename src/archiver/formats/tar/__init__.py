"""The tar format: headers, a strict reader and a deterministic writer."""
