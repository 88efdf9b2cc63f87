"""Training: samplers, the loop with exact resume, and the way from the windows of a fold to a bundle."""
