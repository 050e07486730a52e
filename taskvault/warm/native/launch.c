/* Stands where a tool, or tv, is called: has the call replayed by the warm process, or becomes the Python program.
 *
 * What it stands for is said behind its own program: texts ended by a NUL (a mark for people, "shim" or "tv", the tool, the
 * directory that we lie in, the Python interpreter, the Python program tv), then their length in 32 bits and END.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch.h"

#define END "tvlaunch"
#define MOST_CONFIGURED_BYTES 32768
#define TEXTS 6

extern char **environ;

struct configured {
    const char *mark, *kind, *tool, *here, *python, *tv;
};

static bool read_configured(struct configured *found)
{
    static char content[MOST_CONFIGURED_BYTES];
    char footer[12];
    uint32_t length;
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    off_t end = file < 0 ? -1 : lseek(file, 0, SEEK_END);
    bool is_read = end > 12 && pread(file, footer, sizeof footer, end - 12) == 12 && !memcmp(footer + 4, END, 8) &&
                   (memcpy(&length, footer, 4), length < sizeof content) &&
                   pread(file, content, length, end - 12 - (off_t)length) == (ssize_t)length;
    if (file >= 0)
        close(file);
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
    static const char *const ALONE[] = {"--quiet", "--no-store", "--read-only"}, *const WITH_VALUE[] = {"--root", "--scope", "--env"};
    if (!*arguments || strcmp(*arguments, "run"))
        return false;
    for (arguments++; *arguments && strcmp(*arguments, "--"); arguments++) {
        bool known = false;
        for (size_t n = 0; n < 3; n++) {
            known |= !strcmp(*arguments, ALONE[n]);
            if (!strcmp(*arguments, WITH_VALUE[n])) {
                known = arguments[1] != NULL;
                arguments += known;
                break;
            }
        }
        if (!known)
            return false;
    }
    return arguments[0] && arguments[1];
}

/* Writes which vault is meant; false if that is for Python to find out, or if nothing is to be replayed. */
static bool find_home(char *home, size_t room)
{
    const char *named = getenv("TASKVAULT_HOME"), *user = getenv("HOME"), *warm = getenv("TASKVAULT_WARM");
    if (getenv("TASKVAULT") || getenv("TASKVAULT_RUN") || (warm && strcmp(warm, "on")))
        return false;
    if (named && *named)
        return *named == '/' && (size_t)snprintf(home, room, "%s", named) < room;
    return user && *user == '/' && (size_t)snprintf(home, room, "%s/.taskvault", user) < room;
}

int main(int count, char **arguments)
{
    struct configured configured;
    char home[4096];
    open_streams();
    if (!read_configured(&configured)) {
        dprintf(2, "taskvault-launch: it stands for nothing; tv shim makes copies that do.\n");
        return 2;
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
    if (is_plain_run(given + 1) && find_home(home, sizeof home) && access(configured.python, X_OK) == 0)
        ask_warm_process(configured.python, home, given + 1, environ);
    execv(configured.tv, given);
    if (is_shim) { /* tv is gone */
        arguments[0] = (char *)configured.tool;
        execvp(configured.tool, arguments);
    }
    int reason = errno;
    dprintf(2, "%s: %s\n", is_shim ? configured.tool : configured.tv, strerror(reason));
    return reason == ENOENT ? 127 : 126;
}
