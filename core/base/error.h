/* error.h: the text of the last failure, one line, kept per thread. */
#ifndef MF_BASE_ERROR_H
#define MF_BASE_ERROR_H
#include "../moonfold.h"

#pragma GCC visibility push(default)   /* backends in libraries of their own use these */
/* Stores the text and returns `status`, so that a check is one line: return mf__fail(MF_ESHAPE, "...", ...).
 * Set once, at the lowest level that knows the numbers. */
mf_status mf__fail(mf_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A broken invariant of ours, never a caller's mistake: prints file and line and aborts. */
#define mf_assert(condition) ((condition) ? (void)0 : mf__assert_failed(#condition, __FILE__, __LINE__))
void mf__assert_failed(const char *condition, const char *file, int line) __attribute__((noreturn));
#pragma GCC visibility pop

/* Propagates a failure to the caller. */
#define MF_TRY(expression) do { mf_status mf_try_ = (expression); if (mf_try_ != MF_OK) return mf_try_; } while (0)
/* The same where something has to be released first: `status` must be in scope and `out:` must follow. */
#define MF_TRY_OUT(expression) do { status = (expression); if (status != MF_OK) goto out; } while (0)
#endif
