"""The mirror of one run: locate it, select a checkpoint, plan, publish."""
