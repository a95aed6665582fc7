"""Bring the files of a checkpoint to blob storage: by blocks, or by the service's own copy; verified."""
