"""Scores of node sets, and what they are made of: weights, similarities, spreads."""
