"""Intervals, paired differences and verdicts."""
