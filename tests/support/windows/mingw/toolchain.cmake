# llama.cpp for Windows by mingw-w64 with Microsoft's universal C runtime, for tests only.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
set(CMAKE_C_COMPILER x86_64-w64-mingw32ucrt-gcc)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32ucrt-g++)
set(CMAKE_RC_COMPILER x86_64-w64-mingw32ucrt-windres)
# The compiler runs in a tree of its own. CMake must look there for the libraries that it names, such as OpenMP's.
set(CMAKE_FIND_ROOT_PATH "$ENV{LCW_MINGW_TREE}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_USER_MAKE_RULES_OVERRIDE "${CMAKE_CURRENT_LIST_DIR}/names.cmake")
# GCC does not align the stack of a function on Windows to 32 bytes and still spills vectors of that size to it:
# https://gcc.gnu.org/bugzilla/show_bug.cgi?id=54412
foreach(language IN ITEMS C CXX)
    set(CMAKE_${language}_FLAGS_INIT "-Wa,-muse-unaligned-vector-move")
endforeach()
foreach(kind IN ITEMS SHARED MODULE)
    set(CMAKE_${kind}_LINKER_FLAGS_INIT "-s -Wl,--no-insert-timestamp")
endforeach()
