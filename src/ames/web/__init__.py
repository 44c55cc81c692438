"""The search page of a collection: an HTTP server for a browser on this machine, and its JSON answers."""
