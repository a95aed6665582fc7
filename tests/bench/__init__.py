"""Compares the program with what people would use instead. See ``__main__.py``."""
