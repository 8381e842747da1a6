# How a library of the wheel is named and linked.

# A library of the wheel finds its neighbours beside itself, in the build tree already: what is linked is what is shipped.
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN")
set(CMAKE_INSTALL_RPATH_USE_LINK_PATH OFF)

# lcw_library(<target>)
#
# One file, one name: the version links that upstream asks for (libllama.so -> libllama.so.0 -> libllama.so.0.5.0) become
# two more copies in a wheel, because a zip has no links. The SONAME becomes the file name, so the loader finds an already
# loaded libggml-base.so by the name that libggml.so asks for.
function(lcw_library target)
    set_property(TARGET ${target} PROPERTY VERSION)
    set_property(TARGET ${target} PROPERTY SOVERSION)
    set_property(TARGET ${target} PROPERTY LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/unit")
    set_property(TARGET ${target} PROPERTY EXCLUDE_FROM_ALL FALSE)
endfunction()
