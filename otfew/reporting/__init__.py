"""What people read of a run: sentences, tables, pictures."""
