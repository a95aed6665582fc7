"""What a pod of OSMO can ask OSMO itself: the status of a run, and where it put its outputs."""
