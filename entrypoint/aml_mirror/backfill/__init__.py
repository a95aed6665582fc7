"""Many runs in one call: found below a prefix one by one, told apart from what is mirrored already, mirrored.

How one run is mirrored is defined in :mod:`aml_mirror.pipeline.mirror`. This package decides which runs are
mirrored, under which names and in which order, and sums up the results.
"""
