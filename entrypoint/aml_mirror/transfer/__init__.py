"""Brings a checkpoint's files to blob storage, by blocks or by the service's own copy, and verifies them."""
