/* zip.h: ZIP archives as other readers of this room see them. */
#ifndef MF_IO_ZIP_H
#define MF_IO_ZIP_H
#include "../base/error.h"

/* The bytes of entry i, CRC checked: borrowed until the next call on this archive. `op` opens error texts. */
mf_status mf__zip_bytes(const unsigned char **data, int64_t *bytes, const char *op, mf_zip *zip, int64_t i);
/* An archive in memory that the caller keeps; `path` names it in error texts. */
mf_status mf__zip_view(mf_zip **out, const void *data, int64_t bytes, const char *path);
const char *mf__zip_path(const mf_zip *zip);

static inline uint32_t mf__little16(const unsigned char *p) { return p[0] | (uint32_t)p[1] << 8; }
static inline uint32_t mf__little32(const unsigned char *p) { return mf__little16(p) | mf__little16(p + 2) << 16; }
static inline uint64_t mf__little64(const unsigned char *p) { return mf__little32(p) | (uint64_t)mf__little32(p + 4) << 32; }

enum {
    MF__ZIP_LOCAL = 0x04034b50, MF__ZIP_CENTRAL = 0x02014b50, MF__ZIP_END = 0x06054b50, MF__ZIP_END64 = 0x06064b50, MF__ZIP_LOCATOR64 = 0x07064b50,
    MF__ZIP_STORED = 0, MF__ZIP_DEFLATED = 8, MF__ZIP_EXTRA64 = 1
};
#endif
