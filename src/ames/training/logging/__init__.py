"""Records of a training: journal, trackers, environment."""
