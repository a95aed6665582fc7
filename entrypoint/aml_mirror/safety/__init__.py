"""Tells whether loading a model version can run code that its maker chose, without loading anything."""
