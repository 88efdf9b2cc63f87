"""Numbers alone: predictions, proportions with their limits, events, comparisons and stress tests."""
