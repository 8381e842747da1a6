"""The parts of a toolchain on Windows: Visual C++, an installed CUDA toolkit, import libraries."""
