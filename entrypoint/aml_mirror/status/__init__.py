"""Which runs of a prefix have a version in the registry."""
