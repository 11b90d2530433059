# embed_files(<out.c> <array> <file>...): a C source that defines
#   const struct embedded_file <array>[] = {{name, bytes, size}, ..., {0}};
# declared in embedded.h. Bytes, because string literals of C17 end at 4095.
function(embed_files out array)
  set(bytes "")
  set(table "")
  set(index 0)
  foreach(file IN LISTS ARGN)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    get_filename_component(name ${file} NAME)
    file(READ ${file} hex HEX)
    string(REGEX REPLACE "(..)" "0x\\1," hex "${hex}")
    string(APPEND bytes "static const unsigned char file_${index}[] = {\n${hex}0};\n")
    string(APPEND table "    {\"${name}\", (const char *)file_${index}, sizeof file_${index} - 1},\n")
    math(EXPR index "${index} + 1")
  endforeach()
  file(CONFIGURE OUTPUT ${out} CONTENT
    "#include \"embedded.h\"\n\n${bytes}\nconst struct embedded_file ${array}[] = {\n${table}    {0},\n};\n"
    @ONLY)
endfunction()
