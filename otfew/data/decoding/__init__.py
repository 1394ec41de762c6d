"""From the bytes of any image file to pixels, or one sentence."""
