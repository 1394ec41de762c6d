"""Solvers for small problems on a GPU: one warp a problem, compiled where they run."""
