"""Class-labelled data sets: published lists and own labels, as lists that the library reads."""
