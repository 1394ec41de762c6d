"""Training: one loop, its objectives (pre-training, meta-training, metric, long-tailed), and the files they write."""
