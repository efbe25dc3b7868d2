"""From a problem to the ids that a policy model continues."""
