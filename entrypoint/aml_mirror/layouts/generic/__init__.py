"""Any other run: see :mod:`aml_mirror.layouts.generic.layout`."""
