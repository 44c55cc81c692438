"""The generated data set: landmarks that are drawn, seen from several places."""
