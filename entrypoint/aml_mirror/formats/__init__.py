"""File formats, read without loading them: whether a file is complete, and the few values a layout needs."""
