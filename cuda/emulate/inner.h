/* inner.h: what the two halves of the emulator share. */
#ifndef MF_CUDA_EMULATE_INNER_H
#define MF_CUDA_EMULATE_INNER_H
#include <cstdint>

[[noreturn]] void mf__emulate_abort(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *mf__emulate_kernel();                /* launched last, or about to be */
const char *mf__emulate_where();                 /* kernel, block and thread that run, or "the host" */
void mf__emulate_fault(void *address, bool trap);/* says what a signal in a kernel means; returns if it is none of ours */

/* runtime.cpp */
void mf__emulate_open(bool open);                /* device memory: to kernels and copies, not to the host */
const char *mf__emulate_region(const void *p);   /* "device memory" ..., NULL when the address is no memory of the device's */
#endif
