"""Exact transport by our network simplex."""
