"""Commands, one a file; no algorithm lives here."""
