"""Which version may drive a robot: a policy, its arithmetic, and who holds a stage."""
