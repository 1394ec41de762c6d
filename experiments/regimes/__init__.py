"""When does transport pay? A map of what exact transport adds, and one sentence that must predict."""
