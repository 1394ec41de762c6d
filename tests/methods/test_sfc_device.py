"""The kernels of the structured FC's fit: against the CPU's fit, lane by lane, and where they leave it to the CPU."""
