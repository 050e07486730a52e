/* Stands where a tool, or tv, is called: has the call replayed by the warm process, or becomes the Python program.
 *
 * What it stands for is said behind its own program: texts ended by a NUL (a mark for people, "shim" or "tv", the tool, the
 * directory that we lie in, the Python interpreter, the Python program tv), then their length in 32 bits and END.  With nothing
 * behind it, it is tv as it was installed: the Python program lies beside it, and names its interpreter in its first line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "launch.h"

#define END "tvlaunch"
#define MOST_CONFIGURED_BYTES 32768
#define TEXTS 6
#define PROGRAM "taskvault"
#define SHELL_LINE "#!/bin/sh\n'''exec' " /* where an interpreter's path is too long for a first line, or has spaces */
#define REST_OF_SHELL_LINE " \"$0\" \"$@\"\n"

extern char **environ;

struct configured {
    const char *mark, *kind, *tool, *here, *python, *tv;
};

static bool read_configured(int file, struct configured *found)
{
    static char content[MOST_CONFIGURED_BYTES];
    char footer[12];
    uint32_t length;
    off_t end = lseek(file, 0, SEEK_END);
    bool is_read = end > 12 && pread(file, footer, sizeof footer, end - 12) == 12 && !memcmp(footer + 4, END, 8) &&
                   (memcpy(&length, footer, 4), length < sizeof content) &&
                   pread(file, content, length, end - 12 - (off_t)length) == (ssize_t)length;
    if (!is_read)
        return false;
    const char **texts[TEXTS] = {&found->mark, &found->kind, &found->tool, &found->here, &found->python, &found->tv};
    const char *at = content;
    for (int n = 0; n < TEXTS; n++) {
        *texts[n] = at;
        at += strlen(at) + 1;
    }
    return at <= content + length;
}

/* Our own file, however it was found: /proc may not be mounted. */
static bool name_ourselves(char *place, size_t room)
{
    ssize_t length = readlink("/proc/self/exe", place, room);
    if (length > 0 && (size_t)length < room) {
        place[length] = 0;
        return true;
    }
    const char *started = (const char *)getauxval(AT_EXECFN);
    char *found = started ? realpath(started, NULL) : NULL;
    bool fits = found && (size_t)snprintf(place, room, "%s", found) < room;
    free(found);
    return fits;
}

/* Returns the interpreter that a script names, cut out of its beginning; nothing if it is no Python, or is given options. */
static const char *interpreter_of(char *start)
{
    char *at = start + 2, *end = at + strcspn(at, "\n");
    if (!strncmp(start, SHELL_LINE, strlen(SHELL_LINE))) {
        at = start + strlen(SHELL_LINE);
        bool is_quoted = *at == '"' || *at == '\'';
        end = is_quoted ? strchr(at + 1, *at) : at + strcspn(at, " \n");
        if (end && strncmp(end + is_quoted, REST_OF_SHELL_LINE, strlen(REST_OF_SHELL_LINE)))
            return "";
        at += is_quoted;
    } else if (strncmp(start, "#!", 2)) {
        return "";
    }
    if (!end || !*end)
        return "";
    *end = 0;
    const char *name = strrchr(at, '/');
    return *at == '/' && !strncmp(name, "/python", 7) && !strpbrk(name, " \t") ? at : "";
}

/* As it was installed. */
static bool find_beside(struct configured *found)
{
    static char place[4096], start[1024];
    if (!name_ourselves(place, sizeof place - sizeof PROGRAM))
        return false;
    char *name = strrchr(place, '/');
    if (!name)
        return false;
    memcpy(name + 1, PROGRAM, sizeof PROGRAM);
    int file = open(place, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, start, sizeof start - 1);
    if (file >= 0)
        close(file);
    *found = (struct configured){.mark = "", .kind = "tv", .tool = "", .here = "", .python = "", .tv = place};
    if (length > 0)
        found->python = interpreter_of(start);
    return true;
}

static bool find_configured(struct configured *found)
{
    char place[4096];
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (file < 0 && name_ourselves(place, sizeof place))
        file = open(place, O_RDONLY | O_CLOEXEC);
    bool is_configured = file >= 0 && read_configured(file, found);
    if (file >= 0)
        close(file);
    return is_configured || find_beside(found);
}

/* A closed standard stream must not become a socket of ours. */
static void open_streams(void)
{
    for (int stream = 0; stream <= 2; stream++)
        if (fcntl(stream, F_GETFD) < 0)
            open("/dev/null", O_RDWR);
}

/* Takes all of `here` out of PATH. */
static void leave_path(const char *here)
{
    const char *path = getenv("PATH");
    if (!path)
        return;
    char *rest = malloc(strlen(path) + 1), *at = rest;
    size_t length = strlen(here);
    for (const char *each = path;;) {
        size_t size = strcspn(each, ":");
        if (size != length || memcmp(each, here, length)) {
            if (at != rest)
                *at++ = ':';
            at = mempcpy(at, each, size);
        }
        if (!each[size])
            break;
        each += size + 1;
    }
    *at = 0;
    setenv("PATH", rest, 1);
}

/* Whether these are arguments of `tv run` that the warm process understands, whatever the values. */
static bool is_plain_run(char *const *arguments)
{
    static const char *const ALONE[] = {"--quiet", "--no-store", "--read-only", "--refresh"};
    static const char *const WITH_VALUE[] = {"--root", "--scope", "--env"};
    if (!*arguments || strcmp(*arguments, "run"))
        return false;
    for (arguments++; *arguments && strcmp(*arguments, "--"); arguments++) {
        bool known = false;
        for (size_t n = 0; n < sizeof ALONE / sizeof *ALONE; n++)
            known |= !strcmp(*arguments, ALONE[n]);
        for (size_t n = 0; n < sizeof WITH_VALUE / sizeof *WITH_VALUE; n++)
            if (!strcmp(*arguments, WITH_VALUE[n])) {
                known = arguments[1] != NULL;
                arguments += known;
                break;
            }
        if (!known)
            return false;
    }
    return arguments[0] && arguments[1];
}

/* Returns the arguments behind a vault that is named before anything else. */
static char *const *behind_home(char *const *arguments, const char **named)
{
    static const char OPTION[] = "--home";
    size_t length = strlen(OPTION);
    if (!*arguments || strncmp(*arguments, OPTION, length))
        return arguments;
    if ((*arguments)[length] == '=') {
        *named = *arguments + length + 1;
        return arguments + 1;
    }
    if ((*arguments)[length] || !arguments[1])
        return arguments;
    *named = arguments[1];
    return arguments + 2;
}

/* Writes which vault is meant; false if that is for Python to find out, if nothing is to be replayed, or no daemon was there. */
static bool find_home(const char *named, char *home, size_t room)
{
    const char *user = getenv("HOME"), *warm = getenv("TASKVAULT_WARM");
    char socket[4096 + 32];
    if (getenv("TASKVAULT") || getenv("TASKVAULT_RUN") || (warm && strcmp(warm, "on")))
        return false;
    if (!named || !*named)
        named = getenv("TASKVAULT_HOME");
    bool is_named = named && *named;
    const char *start = is_named ? named : user;
    if (!start || *start != '/' || (size_t)snprintf(home, room, "%s%s", start, is_named ? "" : "/.taskvault") >= room)
        return false;
    snprintf(socket, sizeof socket, "%s/control.sock", home);
    return access(socket, F_OK) == 0;
}

int main(int count, char **arguments)
{
    struct configured configured;
    char home[4096];
    open_streams();
    if (!find_configured(&configured)) {
        dprintf(2, "tv: it cannot find its own file, and so not what it stands for; call " PROGRAM ".\n");
        return 126;
    }
    bool is_shim = !strcmp(configured.kind, "shim");
    char **given = calloc((size_t)count + 6, sizeof *given);
    if (!given)
        return 126;
    int number = 0;
    given[number++] = (char *)configured.tv;
    if (is_shim) {
        leave_path(configured.here);
        given[number++] = "run";
        given[number++] = "--quiet";
        given[number++] = "--";
        given[number++] = (char *)configured.tool;
    }
    memcpy(given + number, arguments + 1, sizeof *given * (size_t)(count > 0 ? count : 1));
    const char *named = NULL;
    char *const *behind = behind_home(given + 1, &named);
    if (*configured.python && is_plain_run(behind) && find_home(named, home, sizeof home) &&
        access(configured.python, X_OK) == 0)
        ask_warm_process(configured.python, home, given + 1, environ);
    execv(configured.tv, given);
    if (is_shim) { /* tv is gone */
        arguments[0] = (char *)configured.tool;
        execvp(configured.tool, arguments);
    }
    int reason = errno;
    if (is_shim)
        dprintf(2, "%s: %s\n", configured.tool, strerror(reason));
    else if (reason == ENOENT)
        dprintf(2, "tv: %s is missing, or the interpreter that it names; install taskvault again.\n", configured.tv);
    else
        dprintf(2, "tv: %s cannot be started (%s); install taskvault again.\n", configured.tv, strerror(reason));
    return reason == ENOENT ? 127 : 126;
}
