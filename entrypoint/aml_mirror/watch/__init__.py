"""Mirrors workflows of OSMO as they complete: the passes over OSMO's list, and the journal of failures."""
