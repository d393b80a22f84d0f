/* main.c: the program `moonfold`, LuaJIT with the library at hand.
 *
 * What it does is written in lua/moonfold/repl.lua; here is what Lua cannot do by itself: finding the Lua files
 * beside the executable, line editing (libedit), and Ctrl-C.
 *
 *   build/moonfold        ../lua/moonfold/                 the source tree
 *   PREFIX/bin/moonfold   ../share/moonfold/lua/moonfold/  an installation
 *   elsewhere             LUA_PATH
 *
 * Ctrl-C sets a debug hook, which raises an error at the next instruction that the interpreter runs; a kernel that
 * is at work finishes first. Machine code that LuaJIT made of a loop has no hooks, so the prompt does not compile
 * what is typed, and a second Ctrl-C ends the program. */
#include <dirent.h>
#include <lauxlib.h>
#include <limits.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <editline/readline.h>
#include "signals.h"

static lua_State *state;                    /* for signal handlers and libedit, which carry no pointer of ours */
static volatile sig_atomic_t interrupted;   /* Ctrl-C came while a line was being edited or code was running */
static volatile sig_atomic_t editing;

/* ---- Ctrl-C ---- */

static void stop_hook(lua_State *L, lua_Debug *where) {
    (void)where;
    lua_sethook(L, NULL, 0, 0);
    interrupted = 0;
    luaL_error(L, "interrupted");
}

static void on_interrupt(int number) {
    if (!editing && interrupted) {
        signal(number, SIG_DFL);            /* the first one was not heard: machine code is looping */
        raise(number);
        return;
    }
    interrupted = 1;
    if (!editing) lua_sethook(state, stop_hook, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 1);
}

/* Without SA_RESTART, so that libedit's read returns. */
static void catch_interrupts(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

/* ---- line editing ---- */

static int completer = LUA_NOREF;           /* Lua function (line, first, last) -> table of replacements */

static char *copy_text(const char *text) {
    char *copy = malloc(strlen(text) + 1);
    if (copy) strcpy(copy, text);
    return copy;
}

/* What all of them begin with: libedit puts the first entry on the line. */
static char *common_beginning(char **list) {
    size_t n = strlen(list[0]);
    for (char **item = list; *item; item++) {
        size_t i = 0;
        while (i < n && (*item)[i] == list[0][i]) i++;
        n = i;
    }
    char *beginning = copy_text(list[0]);
    if (beginning) beginning[n] = 0;
    return beginning;
}

static char **complete(const char *text, int first, int last) {
    (void)text;
    lua_State *L = state;
    int top = lua_gettop(L);
    char **list = NULL;
    rl_attempted_completion_over = 1;       /* never libedit's own file names */
    if (completer == LUA_NOREF) return NULL;
    lua_rawgeti(L, LUA_REGISTRYINDEX, completer);
    lua_pushstring(L, rl_line_buffer);
    lua_pushinteger(L, first);
    lua_pushinteger(L, last);
    if (lua_pcall(L, 3, 1, 0) == 0 && lua_istable(L, -1)) {
        size_t n = lua_objlen(L, -1);
        list = n > 0 ? calloc(n + 2, sizeof *list) : NULL;
        for (size_t i = 0; list && i < n; i++) {
            lua_rawgeti(L, -1, (int)i + 1);
            list[i + 1] = copy_text(lua_isstring(L, -1) ? lua_tostring(L, -1) : "");
            lua_pop(L, 1);
        }
        if (list) list[0] = common_beginning(list + 1);
    }
    lua_settop(L, top);
    return list;
}

/* readline(prompt) -> text; nil at the end of input; false after Ctrl-C */
static int read_line(lua_State *L) {
    const char *prompt = luaL_checkstring(L, 1);
    interrupted = 0;
    editing = 1;
    char *line = readline(prompt);
    editing = 0;
    if (line) {
        lua_pushstring(L, line);
        free(line);
    } else if (interrupted) {
        fputc('\n', stdout);
        lua_pushboolean(L, 0);
    } else {
        lua_pushnil(L);
    }
    interrupted = 0;
    return 1;
}

static int remember_line(lua_State *L) {
    add_history(luaL_checkstring(L, 1));
    return 0;
}

static int load_history(lua_State *L) {
    lua_pushboolean(L, read_history(luaL_checkstring(L, 1)) == 0);
    return 1;
}

static int save_history(lua_State *L) {
    const char *path = luaL_checkstring(L, 1);
    stifle_history((int)luaL_optinteger(L, 2, 2000));
    lua_pushboolean(L, write_history(path) == 0);
    return 1;
}

static int set_completer(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_pushvalue(L, 1);
    luaL_unref(L, LUA_REGISTRYINDEX, completer);
    completer = luaL_ref(L, LUA_REGISTRYINDEX);
    rl_attempted_completion_function = complete;
    /* A word keeps its dots, colons and slashes: x:su, mf.nn.li, data/tr. */
    rl_completer_word_break_characters = (char *)" \t\n\"'`=+-*^%#<>~(){}[];,";
    rl_completion_append_character = 0;
    return 0;
}

/* list_folder(path) -> names, folders with a slash at the end; nil when it cannot be read */
static int list_folder(lua_State *L) {
    const char *folder = luaL_checkstring(L, 1);
    DIR *entries = opendir(folder);
    if (!entries) return 0;
    lua_newtable(L);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(entries));) {
        struct stat what;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        int is_folder = fstatat(dirfd(entries), entry->d_name, &what, 0) == 0 && S_ISDIR(what.st_mode);
        lua_pushfstring(L, is_folder ? "%s/" : "%s", entry->d_name);
        lua_rawseti(L, -2, ++n);
    }
    closedir(entries);
    return 1;
}

static int is_terminal(lua_State *L) {
    lua_pushboolean(L, isatty(STDIN_FILENO));
    lua_pushboolean(L, isatty(STDOUT_FILENO));
    return 2;
}

static int columns(lua_State *L) {
    struct winsize size;
    int known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    lua_pushinteger(L, known ? size.ws_col : 80);
    return 1;
}

static int seconds(lua_State *L) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    lua_pushnumber(L, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
    return 1;
}

static const luaL_Reg terminal[] = {
    {"readline", read_line},       {"remember", remember_line},   {"load_history", load_history},
    {"save_history", save_history}, {"set_completer", set_completer}, {"is_terminal", is_terminal},
    {"columns", columns},          {"seconds", seconds},          {"list_folder", list_folder},
    {NULL, NULL},
};

/* ---- start ---- */

static int readable(const char *format, const char *folder, char *path, size_t size) {
    int n = snprintf(path, size, format, folder);
    return n > 0 && (size_t)n < size && access(path, R_OK) == 0;
}

/* Lets `require` find the Lua files, and the FFI the library of the same build. */
static void find_files(lua_State *L) {
    char folder[PATH_MAX], path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (n <= 0) return;
    folder[n] = 0;
    char *slash = strrchr(folder, '/');
    if (slash) *slash = 0;
    if (readable("%s/libmoonfold.so", folder, path, sizeof path)) setenv("MOONFOLD_LIBRARY", path, 0);
    const char *root = "../lua";
    if (!readable("%s/../lua/moonfold/init.lua", folder, path, sizeof path)) {
        if (!readable("%s/../share/moonfold/lua/moonfold/init.lua", folder, path, sizeof path)) return;
        root = "../share/moonfold/lua";
    }
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "path");
    lua_pushfstring(L, "%s/%s/?.lua;%s/%s/?/init.lua;%s", folder, root, folder, root, lua_tostring(L, -1));
    lua_setfield(L, -3, "path");
    lua_pop(L, 2);
}

/* main(arguments, terminal) of moonfold.repl returns the exit status. */
static int start(lua_State *L) {
    char **argv = lua_touserdata(L, 1);
    luaL_openlibs(L);
    find_files(L);
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, mf_program_signals);
    lua_setfield(L, -2, "moonfold.signals");
    lua_pop(L, 2);
    lua_getglobal(L, "require");
    lua_pushstring(L, "moonfold.repl");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "main");
    lua_newtable(L);
    for (int i = 0; argv[i]; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_newtable(L);
    luaL_register(L, NULL, terminal);
    lua_call(L, 2, 1);
    return 1;
}

/* OpenMP's workers spin between parallel loops. On a machine that others use too, spinning starves whoever has the
 * next piece of work: with a load of 5 on 2 cores a layer at L = 256 took 680 ms with libgomp's default, 115 ms with a
 * thousand turns. libgomp reads its variables when it is loaded, before main, so the program starts itself again. */
static void keep_workers_from_spinning(char **argv) {
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    setenv("GOMP_SPINCOUNT", "1000", 1);
    execv("/proc/self/exe", argv);          /* where that fails, we run as we are */
}

int main(int argc, char **argv) {
    (void)argc;
    keep_workers_from_spinning(argv);
    lua_State *L = luaL_newstate();
    if (!L) {
        fputs("moonfold: out of memory\n", stderr);
        return 1;
    }
    state = L;
    catch_interrupts();
    int status = 1;
    lua_pushcfunction(L, start);
    lua_pushlightuserdata(L, argv);
    if (lua_pcall(L, 1, 1, 0) == 0)
        status = (int)lua_tointeger(L, -1);
    else
        fprintf(stderr, "moonfold: %s\n", lua_isstring(L, -1) ? lua_tostring(L, -1) : "an error that is not a text");
    lua_close(L);
    return status;
}
