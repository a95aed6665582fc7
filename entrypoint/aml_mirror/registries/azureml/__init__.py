"""An Azure ML workspace."""
