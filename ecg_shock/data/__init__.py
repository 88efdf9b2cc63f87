"""Read databases and recordings, cut them into labelled windows, and split these by patient."""
