"""LST beside PT-MAP and other transductive methods."""
