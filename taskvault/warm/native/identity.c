/* Who this process is, as one text: two processes with the same text see the same files in the same way. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch.h"

static const char *const NAMESPACES[] = {"mnt", "user", "pid", "uts", "net", "ipc", "time", "cgroup"};
/* Lines of /proc/self/status.  Those from CapInh to Seccomp_filters follow one another. */
static const char *const LINES[] = {"\nUid:", "\nGid:", "\nGroups:", "\nCapInh:", "\nCapPrm:", "\nCapEff:", "\nCapBnd:", "\nCapAmb:",
    "\nSeccomp:", "\nSeccomp_filters:"};
static const char *const MUST_HAVE[] = {"\nTracerPid:\t0\n", "\nNoNewPrivs:\t0\n"};

struct text {
    char *at;
    size_t left;
};

static bool add(struct text *text, const char *words, size_t length)
{
    if (length >= text->left)
        return false;
    memcpy(text->at, words, length);
    text->at += length;
    text->left -= length;
    *text->at = 0;
    return true;
}

static bool add_number(struct text *text, unsigned long long number)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, " %llu", number);
    return add(text, digits, (size_t)length);
}

static bool add_file_number(struct text *text, const char *place)
{
    struct stat status;
    return stat(place, &status) == 0 && add_number(text, status.st_dev) && add_number(text, status.st_ino);
}

static ssize_t read_all(const char *place, char *content, size_t room)
{
    int file = open(place, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    ssize_t got = 0, part;
    while ((part = read(file, content + got, room - 1 - (size_t)got)) > 0)
        got += part;
    close(file);
    if (part < 0 || (size_t)got == room - 1)
        return -1;
    content[got] = 0;
    return got;
}

static bool add_status(struct text *text, const char *process)
{
    static char status[16384]; /* a user may be in thousands of groups: then it does not fit */
    char place[64];
    snprintf(place, sizeof place, "/proc/%s/status", process);
    if (read_all(place, status, sizeof status) <= 0)
        return false;
    for (size_t n = 0; n < sizeof MUST_HAVE / sizeof *MUST_HAVE; n++)
        if (!strstr(status, MUST_HAVE[n]))
            return false;
    for (size_t n = 0; n < sizeof LINES / sizeof *LINES; n++) {
        const char *line = strstr(status, LINES[n]);
        const char *end = line ? strchr(line + 1, '\n') : NULL;
        if (!end || !add(text, line, (size_t)(end - line)))
            return false;
    }
    return true;
}

static bool add_rights(struct text *text, const char *process)
{
    char place[64];
    snprintf(place, sizeof place, "/proc/%s/root", process);
    if (!add_status(text, process) || !add(text, "\nroot", 5) || !add_file_number(text, place))
        return false;
    for (size_t n = 0; n < sizeof NAMESPACES / sizeof *NAMESPACES; n++) {
        snprintf(place, sizeof place, "/proc/%s/ns/%s", process, NAMESPACES[n]);
        add_file_number(text, place); /* an older kernel does not have all of them */
        if (!add(text, ".", 1))
            return false;
    }
    return true;
}

bool has_our_rights(pid_t process)
{
    static char our_words[MOST_IDENTITY_BYTES], their_words[MOST_IDENTITY_BYTES];
    struct text ours = {our_words, sizeof our_words}, theirs = {their_words, sizeof their_words};
    char number[16];
    snprintf(number, sizeof number, "%d", process);
    return add_rights(&ours, "self") && add_rights(&theirs, number) && !strcmp(our_words, their_words);
}

bool describe_identity(char *words, size_t room)
{
    struct text text = {words, room};
    if (!add_rights(&text, "self") || !add(&text, "\npersonality", 12) || !add_number(&text, (unsigned)personality(0xffffffff)) ||
        !add_number(&text, (unsigned)prctl(PR_GET_SECUREBITS)) || !add(&text, "\nlimits", 7))
        return false;
    for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
        struct rlimit limit;
        if (getrlimit(resource, &limit) || !add_number(&text, limit.rlim_cur) || !add_number(&text, limit.rlim_max))
            return false;
    }
    char label[1024];
    ssize_t length = read_all("/proc/self/attr/current", label, sizeof label);
    return add(&text, "\nlabel ", 7) && (length <= 0 || add(&text, label, strlen(label)));
}
