"""Faults that are planted into kernels, the host's arguments and a shard."""
