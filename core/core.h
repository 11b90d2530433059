/*
 * What the files of the core share. Nothing here is public.
 */
#ifndef KERNELRY_CORE_H
#define KERNELRY_CORE_H

#include <kernelry/kernelry.h>
#include <kernelry/plugin.h>

#endif
