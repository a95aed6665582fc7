"""Evidence of what a policy can do: results of evaluations, and statements that bind them to bytes."""
