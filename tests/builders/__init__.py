"""What the tests stand on: a real MLflow server, a proxy in front of it, runs made of real file formats."""
