"""Small transport problems on a GPU, one warp a problem: kernels, and all that finds, compiles and launches them."""
