"""Images to descriptor files."""
