"""AMES: asymmetric and memory-efficient similarity for instance-level image retrieval."""

__version__ = "0.1.0"
DISTRIBUTION = "ames-retrieval"  # on the package index; "ames" there is another project
