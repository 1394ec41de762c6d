"""A run on disk: its folder, the files in it, and the processes that share it."""
