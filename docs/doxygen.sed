#!/bin/sed -Ef
# A comment behind a member or a constant is its documentation; a word with a column of its own at the
# head of a line ("Shapes", "Ownership", ...) begins a paragraph; struct_size is everywhere the same.
s!^( *[A-Za-z#].*[^ /*]) */\* (.*)$!\1 /**< \2!
s!^( *size_t struct_size;)$!\1 /**< sizeof the struct, as its writer was compiled with */!
s!^( *\*+) (Shapes?|Units?|Numerics|Ownership|Errors|Threads|Groups|Defaults)  +!\1 @par \2\n\1 !
