"""Extensions of aml-mirror through entry points: see pyproject.toml."""
