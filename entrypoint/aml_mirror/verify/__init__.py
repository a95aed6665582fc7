"""Compares a registered version with its manifest, byte by byte."""
