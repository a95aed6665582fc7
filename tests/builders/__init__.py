"""What the tests build on: real MLflow servers, a proxy in front of them, runs in real file formats."""
