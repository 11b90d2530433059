# ---- the host side, against drivers of our own ----
if(TARGET kernelry_gpu_host)
  set(fakes ${CMAKE_CURRENT_BINARY_DIR}/drivers)
  # fake_driver(NAME LIBRARY VERSION SOURCE...): a library lib<LIBRARY>.so.<VERSION>.
  function(fake_driver name library version)
    add_library(${name} SHARED ${ARGN})
    set_target_properties(${name} PROPERTIES OUTPUT_NAME ${library} VERSION ${version}
      SOVERSION ${version} C_VISIBILITY_PRESET default LIBRARY_OUTPUT_DIRECTORY ${fakes})
    target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR}/tests/support
      PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
  endfunction()
  set(support ${PROJECT_SOURCE_DIR}/tests/support)
  fake_driver(fake_cuda cuda 1 ${support}/fake_cuda.c ${support}/fake_cuda_graph.c
    ${support}/simt/tensor_map.c)
  fake_driver(fake_nvml nvidia-ml 1 ${support}/fake_nvml.c)
  fake_driver(fake_hip amdhip64 6 ${support}/fake_hip.c)
  find_package(Threads REQUIRED)
  target_link_libraries(fake_cuda PRIVATE Threads::Threads)

  # kernelry_gpu_test(<unit> <source>...): the test gpu.UNIT of the host side's functions.
  function(kernelry_gpu_test unit)
    set(name test_gpu_${unit})
    add_executable(${name} ${ARGN})
    target_link_libraries(${name} PRIVATE kernelry_gpu_host kernelry_gpu_drivers PkgConfig::cmocka)
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
    add_test(NAME gpu.${unit} COMMAND ${name})
    set_tests_properties(gpu.${unit} PROPERTIES LABELS valgrind)
  endfunction()
  # The plugin finds by dlopen what its test has loaded, whether or not the test itself calls it.
  add_library(kernelry_gpu_drivers INTERFACE)
  target_link_libraries(kernelry_gpu_drivers INTERFACE -Wl,--no-as-needed fake_cuda fake_nvml
                        fake_hip)

  kernelry_gpu_test(fake_cuda fake_cuda_test.c)
  kernelry_gpu_test(driver driver_test.c ../../support/simt/tensor_map.c)
  kernelry_gpu_test(devices devices_test.c)
  kernelry_gpu_test(code code_test.c)
  kernelry_gpu_test(prepare prepare_test.c weights.c every_code.c)
  kernelry_gpu_test(kernel kernel_test.c weights.c every_code.c)
  kernelry_gpu_test(plan plan_test.c weights.c every_code.c)

  # What the plugin's file shows to the outside: one symbol, and no library of a GPU.
  if(NOT KERNELRY_SANITIZE AND NOT CMAKE_C_FLAGS MATCHES "--coverage")
    add_test(NAME gpu.plugin_file
      COMMAND sh ${PROJECT_SOURCE_DIR}/tests/unit/cpu/plugin_file_test.sh
              $<TARGET_FILE:kernelry_gpu> kry_plugin_gpu)
  endif()

  # The plugin with code for every architecture, which no driver of ours looks at.
  add_library(test_gpu_plugin MODULE ${PROJECT_SOURCE_DIR}/plugins/gpu/plugin.c every_code.c)
  set_target_properties(test_gpu_plugin PROPERTIES PREFIX "")
  target_link_libraries(test_gpu_plugin PRIVATE kernelry_gpu_host)
  target_compile_definitions(test_gpu_plugin PRIVATE KERNELRY_VERSION="${PROJECT_VERSION}")

  add_executable(test_gpu_lazy lazy_test.c)
  target_link_libraries(test_gpu_lazy PRIVATE kernelry_static kernelry_gpu_host PkgConfig::cmocka)
  target_include_directories(test_gpu_lazy PRIVATE ${support})
  foreach(drivers IN ITEMS here absent)
    add_test(NAME gpu.lazy_${drivers}
             COMMAND test_gpu_lazy $<TARGET_FILE:test_gpu_plugin> ${drivers})
    set_tests_properties(gpu.lazy_${drivers} PROPERTIES SKIP_RETURN_CODE 77)
  endforeach()
  set_tests_properties(gpu.lazy_here PROPERTIES ENVIRONMENT LD_LIBRARY_PATH=${fakes})
  add_dependencies(test_gpu_lazy test_gpu_plugin fake_cuda fake_nvml)

  # The whole plugin on drivers behind which the SIMT layer plays the GPU, as far as a module of
  # device source was made for it: through the core, and through the conformance suite.
  if(TARGET kernelry_simt)
    foreach(driver IN ITEMS cuda hip)
      get_target_property(library fake_${driver} OUTPUT_NAME)
      get_target_property(version fake_${driver} SOVERSION)
      get_target_property(sources fake_${driver} SOURCES)
      list(FILTER sources EXCLUDE REGEX "/simt/") # of which the SIMT layer brings its own
      fake_driver(fake_${driver}_simt ${library} ${version} ${sources}
        ${support}/fake_${driver}_simt.c ${support}/fake_simt.c)
      set_target_properties(fake_${driver}_simt PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${fakes}/simt)
      # gcc tells that it passes structs with a tensor map otherwise than twelve years ago.
      target_compile_options(fake_${driver}_simt PRIVATE -Wno-psabi)
      target_link_libraries(fake_${driver}_simt PRIVATE kernelry_simt Threads::Threads
                            ${CMAKE_DL_LIBS})
    endforeach()
  endif()

  # cuBLAS on that driver.
  if(TARGET fake_cuda_simt)
    fake_driver(fake_cublas cublas 13 ${support}/fake_cublas.c ${PROJECT_SOURCE_DIR}/tools/floats.c)
    set_target_properties(fake_cublas PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${fakes}/simt)
    target_link_libraries(fake_cublas PRIVATE fake_cuda_simt m)
  endif()

  # kernelry_gpu_conformance(MODULE PLATFORM ARCH NUMBER WAVE SHARED-BYTES OPTION...)
  function(kernelry_gpu_conformance module platform arch number wave shared)
    if(NOT TARGET simt_${module} OR NOT TARGET kernelry_conformance)
      return()
    endif()
    set(name gpu_on_cpu_${module})
    add_library(${name} MODULE on_cpu.c every_code.c)
    set_target_properties(${name} PROPERTIES PREFIX "")
    target_link_libraries(${name} PRIVATE kernelry_gpu_host)
    target_compile_definitions(${name} PRIVATE ON_CPU_PLATFORM="${platform}" ON_CPU_ARCH="${arch}"
      ON_CPU_ARCH_NUMBER=${number} ON_CPU_WAVE=${wave} ON_CPU_SHARED=${shared})
    add_dependencies(${name} simt_${module} fake_cuda_simt fake_hip_simt)
    set(test gpu.conformance_${arch})
    if(platform STREQUAL "cuda") # whose modules tell more: sm_90a
      set(test gpu.conformance_${module})
    endif()
    add_test(NAME ${test} COMMAND kernelry verify $<TARGET_FILE:${name}> --quick
             ${ARGN})
    set(environment "LD_LIBRARY_PATH=${fakes}/simt" FAKE_GPU_MODULE=$<TARGET_FILE:simt_${module}>
        FAKE_GPU_WAVE=${wave})
    if(platform STREQUAL "cuda")
      list(APPEND environment FAKE_CUDA_CAPABILITY=${number})
    endif()
    set_tests_properties(${test} PROPERTIES LABELS "conformance;slow" TIMEOUT 1200 COST 80
      ENVIRONMENT "${environment}")
  endfunction()
  # Less than a minute of a processor each; a GPU takes all cases (smoke.sh).
  kernelry_gpu_conformance(sm_75 cuda sm_75 75 32 65536 --cases 25)
  kernelry_gpu_conformance(sm_80 cuda sm_80 80 32 166912 --cases 30)
  kernelry_gpu_conformance(sm_90a cuda sm_90 90 32 232448 --cases 25)
  kernelry_gpu_conformance(cdna rocm gfx942 0x942 64 65536 --cases 25)
  kernelry_gpu_conformance(rdna3 rocm gfx1100 0x1100 32 65536 --cases 25)
  kernelry_gpu_conformance(rdna4 rocm gfx1200 0x1200 32 65536 --cases 25)

  if(TARGET kernelry_tools)
    kernelry_gpu_test(gates gates_test.c weights.c every_code.c)
    target_link_libraries(test_gpu_gates PRIVATE kernelry_tools)
    target_compile_definitions(test_gpu_gates PRIVATE
      SHAPES_FILE="${PROJECT_SOURCE_DIR}/tests/data/shapes.json")
  endif()
endif()
