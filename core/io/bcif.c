/* bcif.c: BinaryCIF as events. */
#include "bcif.h"

mf_status mf__bcif_open(mf__bcif **out, const char *data, int64_t bytes, const char *name, int64_t limit, const char *what) {
    (void)data, (void)bytes, (void)limit;
    *out = NULL;
    return mf__fail(MF_ESUPPORT, "%s: '%s': BinaryCIF cannot be read yet", what, name);
}
mf_status mf__bcif_next(mf__cif_event *event, mf__bcif *b) { (void)event, (void)b; return MF_ESUPPORT; }
mf_status mf__bcif_choose(mf__bcif *b, const int *slots, int count) { (void)b, (void)slots, (void)count; return MF_ESUPPORT; }
int64_t mf__bcif_row(const mf__bcif *b) { (void)b; return 0; }
void mf__bcif_close(mf__bcif *b) { (void)b; }
