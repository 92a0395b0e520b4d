"""Compressed tar streams: reading them within limits, and writing them on all cores."""
