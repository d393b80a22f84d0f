/* version.h: the version, in one place; the Makefile reads it too. */
#ifndef MF_BASE_VERSION_H
#define MF_BASE_VERSION_H
#define MF_VERSION "0.1.0"
#endif
