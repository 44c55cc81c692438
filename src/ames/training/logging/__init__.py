"""What a training leaves behind: journal, trackers, environment."""
