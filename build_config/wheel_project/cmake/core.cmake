# The core: everything but CUDA.

set(LCW_CPU_VARIANTS "" CACHE STRING "CPU variants that go into the wheel (names of llama.cpp's own list)")

foreach(target IN ITEMS ggml-base ggml llama)
    lcw_library(${target})
endforeach()

# llama.cpp builds its whole list of CPU variants or none, and makes libggml depend on each. A variant that is left out
# keeps its target but loses its sources, so it costs one empty file instead of 68 core-seconds.
# (file(CONFIGURE) leaves an unchanged file alone; file(WRITE) would have it compiled after each configuration.)
file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/left_out.c" CONTENT "typedef int left_out;\n")
get_property(all_targets DIRECTORY "${LCW_LLAMA_CPP}/ggml/src" PROPERTY BUILDSYSTEM_TARGETS)
set(unknown ${LCW_CPU_VARIANTS})
foreach(target IN LISTS all_targets)
    if(NOT target MATCHES "^ggml-cpu-([a-z0-9]+)$")
        continue()
    endif()
    set(variant "${CMAKE_MATCH_1}")
    if(variant IN_LIST LCW_CPU_VARIANTS)
        lcw_library(${target})
        list(REMOVE_ITEM unknown ${variant})
    else()
        set_property(TARGET ${target} PROPERTY SOURCES "${CMAKE_CURRENT_BINARY_DIR}/left_out.c")
        set_property(TARGET ${target} PROPERTY LINK_LIBRARIES "")
        set_property(TARGET ${target} PROPERTY LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/left-out")
    endif()
endforeach()
if(unknown)
    message(FATAL_ERROR "llama.cpp has no CPU variant named: ${unknown}")
endif()

# Multimodal, as upstream's bindings ship it. It stands outside llama.cpp's directory scope there too, and so needs the
# version that llama.cpp's own CMakeLists.txt sets.
foreach(part IN ITEMS BASE MAJOR MINOR PATCH)
    get_directory_property(LLAMA_VERSION_${part} DIRECTORY "${LCW_LLAMA_CPP}" DEFINITION LLAMA_VERSION_${part})
endforeach()
add_subdirectory("${LCW_LLAMA_CPP}/tools/mtmd" mtmd EXCLUDE_FROM_ALL)
target_include_directories(mtmd PUBLIC "${LCW_LLAMA_CPP}/include" "${LCW_LLAMA_CPP}/ggml/include")
lcw_library(mtmd)

add_custom_target(lcw_unit DEPENDS llama mtmd ggml ggml-base)
foreach(variant IN LISTS LCW_CPU_VARIANTS)
    add_dependencies(lcw_unit ggml-cpu-${variant})
endforeach()
