"""Checks a set-up before anything is mirrored."""
