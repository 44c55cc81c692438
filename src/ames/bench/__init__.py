"""``ames bench``: methods × data sets → one table, with intervals, bytes and milliseconds."""
