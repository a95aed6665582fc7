"""Removes what no version needs any more."""
