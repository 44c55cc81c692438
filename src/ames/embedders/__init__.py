"""Trained global descriptors: from an image, or its stored features, to a vector; two sides, one space."""
