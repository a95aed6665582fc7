"""Hugging Face's Trainer and what saves as it does: see :mod:`aml_mirror.layouts.huggingface.layout`."""
