/* mmcif_fuzz.c: any bytes as a structure in the format mmCIF. */
#include "structure.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t bytes) { return fuzz_structure(data, bytes, MF_FORMAT_MMCIF); }
