"""Entropic transport: Sinkhorn on costs and on point clouds."""
