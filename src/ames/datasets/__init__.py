"""What a data set is on disk: images, lists, boxes, ground truth, folders of photos."""
