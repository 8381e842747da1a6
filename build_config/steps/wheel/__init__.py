"""The wheel: assembled from upstream's package and the finished units, repaired, and listed in an SBOM."""
