"""The metrics of a run: event files and other logs, read as series with names that a workspace takes."""
