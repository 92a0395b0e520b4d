"""Files of Git LFS: found in a commit, fetched from its host, verified and cached."""
