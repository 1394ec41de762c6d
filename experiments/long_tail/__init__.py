"""OT re-weighting for long-tailed training against its rivals."""
