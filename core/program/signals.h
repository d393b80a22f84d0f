/* signals.h: the Lua module that main.c preloads as `moonfold.signals`. */
#ifndef MF_PROGRAM_SIGNALS_H
#define MF_PROGRAM_SIGNALS_H
#include <lua.h>

int mf_program_signals(lua_State *L);   /* a loader for package.preload */
#endif
