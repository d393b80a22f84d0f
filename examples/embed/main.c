/* A C program with a model inside: it embeds LuaJIT, runs model.lua and reads its tensors by the C API.
 *
 * A tensor in Lua is a cdata that refers to an mf_tensor, so C finds the handle behind lua_topointer. The handle
 * belongs to Lua: it is borrowed while the value is on the stack; mf_tensor_retain keeps it longer. Lua and C share one
 * library, so model.lua must load the very libmoonfold.so that this program is linked with (MOONFOLD_LIBRARY says which).
 *
 * Prints the shape and the first values of the features, and how far they move when C shifts all positions by 5.3 nm along each axis.
 *
 *     cc -std=c11 -Icore examples/embed/main.c -o embed $(pkg-config --cflags --libs luajit) -Lbuild -lmoonfold \
 *         -lm -Wl,-rpath,$PWD/build
 *     LUA_PATH="lua/?.lua;lua/?/init.lua;;" MOONFOLD_LIBRARY=build/libmoonfold.so ./embed examples/embed/model.lua
 */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "moonfold.h"

enum { RESIDUES = 8, WIDTH = 16 };

/* The tensor at a position of the stack; borrowed. */
static mf_tensor *tensor_at(lua_State *L, int i) {
    return *(mf_tensor *const *)lua_topointer(L, i);
}

static void stop(const char *what, const char *why) {
    fprintf(stderr, "embed: %s: %s\n", what, why);
    exit(1);
}

/* Writes positions of a line of residues, moved by `shift` nm along every axis, calls features() and copies what it gives. */
static void features(lua_State *L, int model, double shift, float *values) {
    lua_getfield(L, model, "features");
    lua_getfield(L, model, "positions");
    if (lua_pcall(L, 0, 1, 0) != 0) stop("positions", lua_tostring(L, -1));
    float xyz[RESIDUES][3];
    for (int i = 0; i < RESIDUES; i++) {
        xyz[i][0] = (float)(0.38 * i + shift);
        xyz[i][1] = (float)shift;
        xyz[i][2] = (float)(sin(i) + shift);
    }
    if (mf_tensor_write(tensor_at(L, -1), xyz, sizeof xyz) != MF_OK) stop("write", mf_error_text());
    if (lua_pcall(L, 1, 1, 0) != 0) stop("features", lua_tostring(L, -1));
    const mf_tensor *y = tensor_at(L, -1);
    if (mf_tensor_read(values, (int64_t)sizeof(float) * RESIDUES * WIDTH, y) != MF_OK) stop("read", mf_error_text());
    printf("features (%lld, %lld), %s, %lld bytes\n", (long long)mf_tensor_size(y, 0), (long long)mf_tensor_size(y, 1),
           mf_dtype_name(mf_tensor_dtype(y)), (long long)mf_tensor_bytes(y));
    lua_pop(L, 1);
}

int main(int argc, char **argv) {
    lua_State *L = luaL_newstate();
    if (!L) stop("lua", "no memory");
    luaL_openlibs(L);
    if (luaL_dofile(L, argc > 1 ? argv[1] : "examples/embed/model.lua")) stop("model", lua_tostring(L, -1));
    int model = lua_gettop(L);

    float here[RESIDUES * WIDTH], there[RESIDUES * WIDTH];
    features(L, model, 0, here);
    features(L, model, 5.3, there);
    printf("first residue %.4f %.4f %.4f %.4f ...\n", here[0], here[1], here[2], here[3]);
    double moved = 0, size = 0;
    for (int i = 0; i < RESIDUES * WIDTH; i++) {
        moved = fmax(moved, fabs(there[i] - here[i]));
        size = fmax(size, fabs(here[i]));
    }
    printf("largest change after a shift of 5.3 nm: %.1e of the largest feature\n", moved / size);
    lua_close(L);
    return moved / size < 1e-4 ? 0 : 1;
}
