"""A registered version as a container image, streamed from where it is stored into a container registry."""
