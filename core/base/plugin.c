/* plugin.c: finding libmoonfold_cuda.so: the path in MOONFOLD_CUDA, or the file beside libmoonfold.so.
 *
 * The core never links to CUDA: on a machine without a driver, or where the library was not built, everything else works and
 * the reason is one line of text. The library stays loaded once it was: its kernels are registered with the driver. */
#include "plugin.h"
#include "../ops/kernels.h"
#include "error.h"
#include "version.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void beside_us(char *path, size_t bytes) {
    Dl_info own;
    const char *file = dladdr(&mf__cpu_backend, &own) != 0 && own.dli_fname ? own.dli_fname : "";
    const char *slash = strrchr(file, '/');
    snprintf(path, bytes, "%.*slibmoonfold_cuda.so", slash ? (int)(slash - file) + 1 : 0, file);
}

mf_status mf__plugin_cuda(const mf_plugin **out) {
    static const mf_plugin *found;           /* a library is loaded once in a process, whatever its contexts */
    *out = found;
    if (found) return MF_OK;
    char path[4096];
    const char *given = getenv("MOONFOLD_CUDA");
    if (given) snprintf(path, sizeof path, "%s", given);
    else beside_us(path, sizeof path);
    if (access(path, R_OK) != 0)
        return mf__fail(MF_EDEVICE, given ? "cuda: MOONFOLD_CUDA is '%s', which cannot be read" : "cuda: '%s' was not built (make cuda)", path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library) return mf__fail(MF_EDEVICE, "cuda: %s", dlerror());
    const mf_plugin *plugin = dlsym(library, "mf__cuda_plugin");
    if (!plugin) return mf__fail(MF_EDEVICE, "cuda: '%s' is not a backend of moonfold", path);
    if (plugin->table_bytes != (int64_t)sizeof(struct mf_backend) || strcmp(plugin->version, MF_VERSION) != 0)
        return mf__fail(MF_EDEVICE, "cuda: '%s' was built for moonfold %s, not for this library; build it again", path, plugin->version);
    if (plugin->count() < 1) return MF_EDEVICE;
    *out = found = plugin;
    return MF_OK;
}
