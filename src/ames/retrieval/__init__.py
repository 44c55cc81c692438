"""Ask with a photo: the global index, then re-ranking."""
