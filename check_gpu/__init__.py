"""Tells whether an installed llama-cpp-python, ours or anyone's, uses the GPU, and if not, why.

This package stands alone: standard library only, Python 3.8 and later, so that one file (``check_gpu.pyz``)
also runs on machines that have nothing else of this project.
"""
