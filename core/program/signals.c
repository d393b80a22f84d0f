/* signals.c: the module `moonfold.signals`, which lets a script finish its step before it stops.
 *
 *     signals.hold()      from now on SIGINT, SIGTERM and SIGUSR1 are only noted
 *     signals.pending()   the name of the one that came, or nil
 *     signals.release()   the signals act as before
 *
 * A second SIGINT while one is pending acts as before at once: the user insists. The library itself handles no
 * signals; this belongs to the program. */
#include "signals.h"
#include <lauxlib.h>
#include <signal.h>
#include <string.h>

static const struct { int number; const char *name; } held[] = {{SIGINT, "SIGINT"}, {SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}};
enum { HELD = sizeof held / sizeof *held };

static volatile sig_atomic_t came;
static struct sigaction before[HELD];
static int holding;

static void restore(void) {
    for (int i = 0; i < HELD; i++) sigaction(held[i].number, &before[i], NULL);
    holding = 0;
}

static void note(int number) {
    if (number == SIGINT && came == SIGINT) {
        restore();                /* async-signal-safe: sigaction and raise are */
        raise(SIGINT);
        return;
    }
    came = number;
}

static int hold(lua_State *L) {
    (void)L;
    if (holding) return 0;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    came = 0;
    for (int i = 0; i < HELD; i++) sigaction(held[i].number, &action, &before[i]);
    holding = 1;
    return 0;
}

static int pending(lua_State *L) {
    for (int i = 0; i < HELD; i++)
        if (came == held[i].number) {
            lua_pushstring(L, held[i].name);
            return 1;
        }
    lua_pushnil(L);
    return 1;
}

static int release(lua_State *L) {
    (void)L;
    if (holding) restore();
    came = 0;
    return 0;
}

int mf_program_signals(lua_State *L) {
    static const luaL_Reg functions[] = {{"hold", hold}, {"pending", pending}, {"release", release}, {NULL, NULL}};
    lua_newtable(L);
    for (const luaL_Reg *f = functions; f->name; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
    return 1;
}
