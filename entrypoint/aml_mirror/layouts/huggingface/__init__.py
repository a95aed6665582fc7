"""Hugging Face's Trainer and similar tools: see :mod:`aml_mirror.layouts.huggingface.layout`."""
