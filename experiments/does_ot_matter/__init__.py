"""From the LP to no matching at all."""
