/* plugin.h: the CUDA backend, which is a library of its own, loaded when the first GPU is asked for. */
#ifndef MF_BASE_PLUGIN_H
#define MF_BASE_PLUGIN_H
#include "context.h"

/* What libmoonfold_cuda.so exports under the name mf__cuda_plugin. */
typedef struct mf_plugin {
    int64_t table_bytes;          /* sizeof(struct mf_backend) when it was built: a library of another version is refused */
    const char *version;
    const mf_backend *backend;
    int (*count)(void);           /* GPUs that can be used; 0 with the reason in mf_error_text() */
} mf_plugin;

mf_status mf__plugin_cuda(const mf_plugin **out);  /* MF_EDEVICE with the reason when there is no such library, driver or GPU */
#endif
