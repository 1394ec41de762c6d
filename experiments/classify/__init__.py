"""One's own photos, from the command line: what is known of the labelled ones, then answers about new ones."""
