"""Types and errors that every other package uses."""
