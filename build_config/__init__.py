"""Reproducible CUDA wheels of llama-cpp-python: steps, settings, locks and the project that becomes the wheel."""
