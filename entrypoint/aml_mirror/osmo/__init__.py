"""What a pod of OSMO can ask OSMO itself: how a run stands, and where it put its outputs."""
