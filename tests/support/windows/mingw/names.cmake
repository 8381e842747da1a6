# DLLs are named as Microsoft's compiler names them: llama.dll, not libllama.dll.
set(CMAKE_SHARED_LIBRARY_PREFIX "")
set(CMAKE_SHARED_MODULE_PREFIX "")
