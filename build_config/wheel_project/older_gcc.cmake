# For a GCC that does not know every option of llama.cpp's CPU variants (build_config/data/variants.toml: oldest_gcc).
#
# core.cmake takes the sources from a variant that is left out, and an empty file stays, which would still be compiled with
# the variant's options. They are taken too, once the whole project has been read.
function(lcw_no_options_for_what_is_left_out)
    get_property(all_targets DIRECTORY "${LCW_LLAMA_CPP}/ggml/src" PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target IN LISTS all_targets)
        if(target MATCHES "^ggml-cpu-([a-z0-9]+)$" AND NOT CMAKE_MATCH_1 IN_LIST LCW_CPU_VARIANTS)
            set_property(TARGET ${target} PROPERTY COMPILE_OPTIONS "")
        endif()
    endforeach()
endfunction()

cmake_language(DEFER CALL lcw_no_options_for_what_is_left_out)
