"""Randomness as pure functions of a key: the same on every machine, in every order."""
