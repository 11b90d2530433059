# Quantizing, running and measuring: their parts, then the commands as processes.
foreach(unit IN ITEMS random npy synthetic quantize_rtn quantize_files)
  add_executable(tools_${unit}_test ${unit}_test.c)
  target_link_libraries(tools_${unit}_test PRIVATE kernelry_tools PkgConfig::cmocka)
  target_compile_definitions(tools_${unit}_test PRIVATE
    SHAPES_FILE="${PROJECT_SOURCE_DIR}/tests/data/shapes.json")
  add_test(NAME tools_${unit} COMMAND tools_${unit}_test)
endforeach()

# Kernels that are wrong in one way each; no sanitizer's runtime is needed to link them.
add_library(tools_lying_plugin MODULE lying_plugin.c)
set_target_properties(tools_lying_plugin PROPERTIES PREFIX "" OUTPUT_NAME kernelry-lying)
target_include_directories(tools_lying_plugin PRIVATE ${PROJECT_SOURCE_DIR}/include)

foreach(unit IN ITEMS quantize run bench)
  add_executable(tools_${unit}_command_test ${unit}_command_test.c scratch.c)
  target_link_libraries(tools_${unit}_command_test PRIVATE tools_process kernelry_tools)
  target_compile_definitions(tools_${unit}_command_test PRIVATE
    MAKE_MODEL="$<TARGET_FILE:make_model>"
    LYING_PLUGIN="$<TARGET_FILE:tools_lying_plugin>"
    FIFTY_PLUGINS="${PROJECT_BINARY_DIR}/lib/kernelry/mocks50")
  add_dependencies(tools_${unit}_command_test kernelry make_model mocks tools_lying_plugin
                   kernelry_cpu_reference)
  add_test(NAME tools_${unit}_command COMMAND tools_${unit}_command_test)
endforeach()
