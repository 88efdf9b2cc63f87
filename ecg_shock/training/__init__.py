"""Training: samplers, the training loop with exact resume, and the training of one fold up to its bundle."""
