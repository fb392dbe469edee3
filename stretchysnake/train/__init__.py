"""Training: the loop, the optimiser and its schedule."""
