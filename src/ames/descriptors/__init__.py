"""Descriptor files (HDF5): layouts, reading, growing, merging, provenance."""
