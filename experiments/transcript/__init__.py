"""What classify says of photos whose classes are known, beside the truth, as a record."""
