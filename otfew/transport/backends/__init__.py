"""Other libraries' solvers behind the interface."""
