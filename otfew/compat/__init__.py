"""What otfew has to offer in the shapes of other libraries, each module named after one.

``pml`` imports the library that it is named after; ``pot``, ``scipy`` and ``opencv`` replace theirs.
"""
