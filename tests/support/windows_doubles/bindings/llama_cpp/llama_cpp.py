"""The low-level functions, as upstream names them."""

import ctypes
from pathlib import Path

from llama_cpp._ctypes_extensions import load_shared_library

_lib = load_shared_library("llama", Path(__file__).parent / "lib")
llama_file = _lib.llama_file
llama_file.restype = ctypes.c_char_p
