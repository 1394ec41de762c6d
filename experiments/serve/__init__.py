"""One's own photos on a local page, from the command line."""
