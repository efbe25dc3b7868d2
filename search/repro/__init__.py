"""`ets repro`: the papers' tables from a recipe, beside the published figures, every number from a record on disk."""
