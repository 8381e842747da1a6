"""Says of any installed llama-cpp-python, ours or anyone's, whether it uses the card, and if not, why.

This package stands alone: standard library only, Python 3.8 and later, so that it also travels as one file
(``check_gpu.pyz``) to machines that have nothing else of this project.
"""
