"""Global descriptors to shortlists: exact search, codes, SuperGlobal."""
