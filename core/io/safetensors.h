/* safetensors.h: what reading and writing archives share. */
#ifndef MF_IO_SAFETENSORS_H
#define MF_IO_SAFETENSORS_H
#include "../tensor/tensor.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors data are little endian");

enum { MF__ARCHIVE_MAX_HEADER = 100000000 };     /* the format's own limit */

const char *mf__archive_dtype_text(int dtype);   /* "F32" of MF_FLOAT32, NULL where there is none */

/* A tensor of an open archive where it lies in the mapped file. */
typedef struct mf__archive_tensor {
    const char *name, *dtype_name;
    int ndim;
    const int64_t *shape;
    const char *data;
    int64_t bytes;
} mf__archive_tensor;
mf_status mf__archive_stored(mf__archive_tensor *out, const mf_archive *archive, int64_t i);
#endif
