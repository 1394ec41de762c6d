"""The work of the analyses that are a file each; their commands lie above."""
