"""Decides which version may drive a robot: a policy, its arithmetic, and the owner of each stage."""
