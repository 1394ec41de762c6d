"""Commands: a file for each, a folder for each large one; no algorithm lives here."""
