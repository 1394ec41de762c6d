"""The evaluator: the same episodes for all methods, and what comes of them."""
