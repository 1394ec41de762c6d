"""Training on classes of very different sizes."""
