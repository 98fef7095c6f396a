"""One module or package for each outside thing. Adapters know the sockets and the nouns, never a room."""
