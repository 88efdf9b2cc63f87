"""From files to windows: manifests, recordings, windows, patient splits."""
