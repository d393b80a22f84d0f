/* write.h: what the two writers of structures share. */
#ifndef MF_IO_WRITE_H
#define MF_IO_WRITE_H
#include "file.h"
#include "structure.h"

mf_status mf__write_mmcif(mf__writer *w, const mf_structure *s);
int mf__format_of_name(const char *path);    /* MF_FORMAT_AUTO when the name does not say */
#endif
