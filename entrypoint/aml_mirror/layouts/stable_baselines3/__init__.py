"""Stable-Baselines3: see :mod:`aml_mirror.layouts.stable_baselines3.layout`."""
