"""All other runs: see :mod:`aml_mirror.layouts.generic.layout`."""
