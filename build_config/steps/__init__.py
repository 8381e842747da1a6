"""The main job, read from top to bottom: locks, sources, toolchain, units, wheel, inspection, validation, wheelhouse.

No step imports another one; what a step needs of another is an argument.
"""
