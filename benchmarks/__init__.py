"""What dbsync's claims of speed rest on: each figure is a ratio against a named peer or limit, in one run."""
