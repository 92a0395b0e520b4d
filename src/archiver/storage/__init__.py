"""Archives and their manifests, in one S3 bucket per region."""
