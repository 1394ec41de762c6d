"""Metric learning: one network a loss, on the same batches."""
