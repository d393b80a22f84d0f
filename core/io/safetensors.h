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

/* Where the rows of a tensor stand in the file, for row_reader.c; the pointers live as long as the archive. */
typedef struct mf__row_source {
    const char *path, *name;
    int dtype, ndim;              /* dtype is one of ours */
    const int64_t *shape;
    int64_t row_bytes;            /* of one step of axis 0 */
    int64_t begin;                /* byte of the file where row 0 stands */
    int file;                     /* descriptor, open as long as the archive */
} mf__row_source;
/* MF_EVALUE where there is no tensor i, MF_ESUPPORT for a type that we lack, MF_ESHAPE for a tensor without axes. */
mf_status mf__archive_row_source(mf__row_source *out, const char *op, const mf_archive *archive, int64_t i);
mf_archive *mf__archive_retain(mf_archive *archive);    /* given back by mf_archive_close; by one thread at a time */
/* MF_EFORMAT unless each of `count` bytes is 0 or 1. */
mf_status mf__archive_bools(const char *op, const char *path, const char *name, const void *data, int64_t count);
#endif
