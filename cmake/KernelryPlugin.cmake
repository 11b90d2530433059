# kernelry_add_plugin(<target> <source>...)
#
# Make a plugin: a shared object <target>.so that exports its KRY_PLUGIN entry alone, whatever
# else is linked into it. Targets link further libraries as usual.
set(KERNELRY_PLUGIN_MAP ${CMAKE_CURRENT_LIST_DIR}/plugin.map)

function(kernelry_add_plugin target)
  add_library(${target} MODULE ${ARGN})
  target_link_libraries(${target} PRIVATE Kernelry::plugin)
  set_target_properties(${target} PROPERTIES
    PREFIX ""
    C_VISIBILITY_PRESET hidden
    CXX_VISIBILITY_PRESET hidden
    CUDA_VISIBILITY_PRESET hidden
    HIP_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON
    LINK_DEPENDS ${KERNELRY_PLUGIN_MAP})
  target_link_options(${target} PRIVATE -Wl,--version-script=${KERNELRY_PLUGIN_MAP})
endfunction()
