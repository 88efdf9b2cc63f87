"""Search for a network: the search space, running and resuming a study, the trials, and the consensus."""
