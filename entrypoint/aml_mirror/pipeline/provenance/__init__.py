"""Describes what a version was made of, in standard formats, with a proof that it has not changed."""
