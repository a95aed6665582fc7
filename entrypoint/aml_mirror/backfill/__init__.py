"""Many runs in one call: found below a prefix one by one, told apart from what is mirrored already, mirrored.

How a run is mirrored stands in :mod:`aml_mirror.mirror` alone; here is only which runs, under which names,
in what order, and what came of them all.
"""
