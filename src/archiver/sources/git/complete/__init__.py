"""Complete archives: with the files of submodules, and of Git LFS."""
