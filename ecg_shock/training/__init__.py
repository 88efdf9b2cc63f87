"""Training: samplers, the loop with exact resume, and the plot of its history."""
