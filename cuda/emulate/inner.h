/* inner.h: what the two halves of the emulator share. */
#ifndef MF_CUDA_EMULATE_INNER_H
#define MF_CUDA_EMULATE_INNER_H
#include <cstdint>

[[noreturn]] void mf__emulate_abort(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *mf__emulate_kernel();                /* launched last, or about to be */
const char *mf__emulate_where();                 /* kernel, block and thread that run, or "the host" */
void mf__emulate_fault(void *address, bool trap);/* says what a signal in a kernel means; returns if it is none of ours */

/* for hopper.cpp */
int64_t mf__emulate_shared_bytes();              /* dynamic shared memory of the kernel that runs */
void mf__emulate_sleep(const void *on, int detail, void *site);   /* the thread, until mf__emulate_wake of both */
void mf__emulate_wake(const void *on, int detail);
bool mf__emulate_toss();                         /* in random order true half the time, otherwise never */
void mf__emulate_yield();                        /* lets another thread run */

/* hopper.cpp */
bool mf__emulate_land();                         /* no thread can run: lets a copy land; false: none is under way */
void mf__emulate_block_ends();
const char *mf__emulate_sleep_text(const void *on, int detail);

/* runtime.cpp */
void mf__emulate_open(bool open);                /* device memory: to kernels and copies, not to the host */
const char *mf__emulate_region(const void *p);   /* "device memory" ..., NULL when the address is no memory of the device's */
#endif
