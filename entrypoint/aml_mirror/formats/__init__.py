"""File formats, looked at from outside: whether a file is whole, and the few values a layout needs."""
