"""Mirror workflows of OSMO as they complete: the passes over OSMO's list, and the journal of what failed."""
