"""Training: pre-training on base classes, and the files it writes."""
