"""What otfew keeps on disk to be quicker the next time: where it lies, how much it is, and how it goes again."""
