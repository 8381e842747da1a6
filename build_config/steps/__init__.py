"""The steps of the main job in order: locks, sources, toolchain, units, wheel, inspection, validation, wheelhouse.

No step imports another one: it takes what it needs of another as an argument.
"""
