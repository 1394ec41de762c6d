"""Commands: a file each, or a folder where one is large; ``commands`` holds their names, ``common`` what they share.

No algorithm lives here, and nothing else of otfew imports them.
"""
