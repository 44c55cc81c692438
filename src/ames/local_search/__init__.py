"""Local search: local descriptors of images -> visual words -> an inverted file."""
