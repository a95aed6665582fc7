"""What a package adds to aml-mirror by entry points: see pyproject.toml."""
