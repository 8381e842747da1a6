"""Validate a finished wheel on a GPU without a network: a folder goes there, a report comes back (docs/gpu_kit.md).

``contents`` makes the folder. ``run`` and ``gpu_tests`` go into it, next to the scripts of validation and of the
benchmark. They write down what they see; ``record`` judges that by the code of validation.
"""
