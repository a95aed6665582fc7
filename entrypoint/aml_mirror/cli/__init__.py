"""The command line: parses what a person asks for, calls the rest of the program, prints the answer."""
