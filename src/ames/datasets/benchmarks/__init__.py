"""Published benchmarks: their lists and ground truth as published, as lists that the library reads."""
