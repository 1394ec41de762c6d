"""Losses of metric learning on the same batches."""
