"""Images of the same class, ranked by global vectors and again node by node."""
