"""One adapter a data set, and what turns its files into arrays."""
