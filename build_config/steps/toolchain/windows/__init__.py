"""What a toolchain on Windows needs besides: Visual C++, an installed CUDA toolkit, import libraries."""
