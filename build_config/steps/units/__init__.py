"""Build units: their keys, the store of finished ones, and the compilation of missing ones."""
