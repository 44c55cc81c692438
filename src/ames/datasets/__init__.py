"""Data sets on disk: images, lists, boxes, ground truth, folders of photos."""
