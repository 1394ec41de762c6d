"""Transport plans between images as pictures."""
