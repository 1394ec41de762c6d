"""How the data set ``glyphs`` is drawn."""
