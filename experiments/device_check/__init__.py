"""A card checked and timed: the tests that need one, then what it does a second."""
