"""Whether loading a model version can run code that its maker chose: looked at from outside, never tried."""
