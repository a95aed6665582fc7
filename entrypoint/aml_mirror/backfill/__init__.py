"""Mirrors many runs in one call: finds them below a prefix one by one, and skips mirrored ones.

How one run is mirrored is defined in :mod:`aml_mirror.pipeline.mirror`. This package decides which runs are
mirrored, under which names and in which order, and sums up the results.
"""
