/* msgpack.h: values of MessagePack, one after another, out of memory. */
#ifndef MF_IO_MSGPACK_H
#define MF_IO_MSGPACK_H
#include "../base/error.h"

enum { MF__PACK_NIL, MF__PACK_BOOL, MF__PACK_INTEGER, MF__PACK_REAL, MF__PACK_TEXT, MF__PACK_BYTES, MF__PACK_ARRAY, MF__PACK_MAP, MF__PACK_OTHER };

typedef struct mf__msgpack {
    const char *begin, *at, *end;
    const char *what, *name;       /* of errors: "what: 'name': byte 12: ..." */
} mf__msgpack;

/* TEXT, BYTES: `size` bytes at `data`. ARRAY: `size` values follow; MAP: `size` pairs of them. No count is more than the
 * bytes that are left could hold. INTEGER: `number` too, exact to 2^53. */
typedef struct mf__pack { int kind; int64_t size; const char *data; double number; } mf__pack;

mf_status mf__msgpack_next(mf__pack *out, mf__msgpack *p);
mf_status mf__msgpack_expect(mf__pack *out, mf__msgpack *p, int kind, const char *what);   /* MF_EFORMAT unless it is of the kind */
mf_status mf__msgpack_skip(mf__msgpack *p);                          /* a whole value; nested 32 deep at most */
mf_status mf__msgpack_fail(const mf__msgpack *p, const char *message);
int mf__pack_is(const mf__pack *value, const char *text);
#endif
