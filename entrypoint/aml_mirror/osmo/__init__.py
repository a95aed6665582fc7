"""What a pod of OSMO can ask OSMO: the status of a run, and the location of its outputs."""
