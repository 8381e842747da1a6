# One CUDA shard.

set(LCW_SHARD "" CACHE STRING "Name of the shard: the library becomes libggml-cuda-<name>.so")

lcw_library(ggml-cuda)
set_target_properties(ggml-cuda PROPERTIES OUTPUT_NAME "ggml-cuda-${LCW_SHARD}")

# The shard says for itself how well it fits the visible devices: ggml asks every libggml-cuda-*.so for its score and loads
# the best. Architectures in CMake's spelling become one table row each: number, kind, suffix.
set(rows "")
foreach(arch IN LISTS CMAKE_CUDA_ARCHITECTURES)
    if(NOT arch MATCHES "^([0-9]+)([af]?)-(real|virtual)$")
        message(FATAL_ERROR "cannot read the architecture '${arch}'")
    endif()
    set(suffix "${CMAKE_MATCH_2}")
    if(NOT suffix)
        set(suffix "0")
    else()
        set(suffix "'${suffix}'")
    endif()
    if(CMAKE_MATCH_3 STREQUAL "real")
        set(ptx "false")
    else()
        set(ptx "true")
    endif()
    string(APPEND rows "    {${CMAKE_MATCH_1}, ${ptx}, ${suffix}},\n")
endforeach()
set(LCW_SHARD_ROWS "${rows}")
configure_file(shard_archs.h.in "${CMAKE_CURRENT_BINARY_DIR}/shard/shard_archs.h" @ONLY)
target_sources(ggml-cuda PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/shard_score.cpp" "${CMAKE_CURRENT_SOURCE_DIR}/shown_devices.cpp")
target_include_directories(ggml-cuda PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/shard")

# ggml-cuda sees only the devices that this shard has code for: each call of these functions goes to shown_devices.cpp.
if(NOT WIN32)
    foreach(function IN ITEMS
        cudaGetDeviceCount cudaGetDevice cudaSetDevice cudaGetDeviceProperties cudaGetDeviceProperties_v2
        cudaDeviceGetAttribute cudaDeviceGetPCIBusId cudaDeviceCanAccessPeer cudaDeviceEnablePeerAccess cudaMemcpyPeerAsync
        cudaMallocHost cudaHostAlloc cudaHostRegister
        cuDeviceGet cuMemCreate cuMemGetAllocationGranularity cuMemSetAccess)
        target_link_options(ggml-cuda PRIVATE "LINKER:--wrap=${function}")
    endforeach()
else()
    target_compile_options(ggml-cuda PRIVATE
        "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-include \"${CMAKE_CURRENT_SOURCE_DIR}/shown_names.h\">")
endif()

# nvcc names device symbols by a random seed unless it is given one. The seed must differ from file to file, and be the
# same for everyone: the path below llama.cpp's root.
option(LCW_RANDOM_SEED "Give nvcc a fixed seed for each file (CUDA 12.9 and later)" ON)
if(LCW_RANDOM_SEED)
    get_target_property(sources ggml-cuda SOURCES)
    foreach(source IN LISTS sources)
        if(NOT source MATCHES "\\.cu$")
            continue()
        endif()
        cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${LCW_LLAMA_CPP}/ggml/src/ggml-cuda" NORMALIZE OUTPUT_VARIABLE absolute)
        cmake_path(RELATIVE_PATH absolute BASE_DIRECTORY "${LCW_LLAMA_CPP}" OUTPUT_VARIABLE seed)
        set_source_files_properties("${absolute}" TARGET_DIRECTORY ggml-cuda PROPERTIES COMPILE_OPTIONS "--frandom-seed=${seed}")
    endforeach()
endif()

# ggml-base is linked against here and shipped with the core.
set_property(TARGET ggml-base PROPERTY VERSION)
set_property(TARGET ggml-base PROPERTY SOVERSION)
set_property(TARGET ggml-base PROPERTY LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/link")

add_custom_target(lcw_unit DEPENDS ggml-cuda)
