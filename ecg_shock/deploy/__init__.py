"""Models at work: strip quality, advice, and later streaming and export."""
