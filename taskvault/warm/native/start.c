/* Where the warm process listens, and how it is started: it keeps nothing of the caller but who that is. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "launch.h"

#define MOST_VARIABLES 64
#define LOCK_DESCRIPTOR 3
#define AGAIN_S 3

/* Variables that say how Python itself is to be started. */
static const char *const KEPT[] = {"PYTHON", "PATH=", "HOME=", "LD_LIBRARY_PATH=", "LANG=", "LC_ALL=", "TASKVAULT_WARM_"};

static uint64_t hash(uint64_t sum, const char *text)
{
    do
        sum = (sum ^ (unsigned char)*text) * 0x100000001b3ULL;
    while (*text++);
    return sum;
}

static const char *value_of(char *const *environment, const char *name)
{
    size_t length = strlen(name);
    for (; *environment; environment++)
        if (!strncmp(*environment, name, length) && (*environment)[length] == '=')
            return *environment + length + 1;
    return "";
}

bool name_socket(const char *python, const char *home, const char *identity, char *const *environment, char *place, size_t room)
{
    struct stat status;
    char directory[64];
    snprintf(directory, sizeof directory, "/tmp/taskvault-%u", geteuid());
    if (mkdir(directory, 0700) == 0)
        chmod(directory, 0700); /* whatever the umask */
    if (lstat(directory, &status) || !S_ISDIR(status.st_mode) || status.st_uid != geteuid() || status.st_mode & 077)
        return false;
    uint64_t sum = hash(hash(hash(0xcbf29ce484222325ULL, home), python), value_of(environment, "PYTHONPATH"));
    sum = hash(sum, identity);
    return (size_t)snprintf(place, room, "%s/warm-%016llx", directory, (unsigned long long)sum) < room;
}

static void become_it(const char *const given[4], char *const *environment, int lock)
{
    char *kept[MOST_VARIABLES + 1];
    size_t count = 0;
    for (; *environment && count < MOST_VARIABLES; environment++)
        for (size_t n = 0; n < sizeof KEPT / sizeof *KEPT; n++)
            if (!strncmp(*environment, KEPT[n], strlen(KEPT[n]))) {
                kept[count++] = *environment;
                break;
            }
    kept[count] = NULL;
    int nothing = open("/dev/null", O_RDWR);
    if (nothing < 0 || chdir("/"))
        _exit(1);
    lock = fcntl(lock, F_DUPFD, 10);
    for (int stream = 0; stream <= 2; stream++)
        dup2(nothing, stream);
    dup2(lock, LOCK_DESCRIPTOR);
    syscall(SYS_close_range, LOCK_DESCRIPTOR + 1, ~0U, 0);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    umask(077);
    /* -P: no module comes from the directory that it happens to be in. */
    char *arguments[] = {
        (char *)given[0], "-P", "-m", "taskvault.warm", (char *)given[1], (char *)given[2], (char *)given[3], NULL};
    execve(given[0], arguments, kept);
    _exit(1);
}

void start_warm_process(const char *const arguments[4], char *const *environment)
{
    char place[128];
    snprintf(place, sizeof place, "%s.lock", arguments[3]);
    struct stat before;
    bool is_new = lstat(place, &before) != 0;
    int lock = open(place, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock < 0)
        return;
    /* It is there, and only begins or ends; or could not begin a moment ago. */
    if (flock(lock, LOCK_EX | LOCK_NB) || (!is_new && llabs((long long)time(NULL) - before.st_mtime) < AGAIN_S)) {
        close(lock);
        return;
    }
    futimens(lock, NULL);
    /* For people: which vault it serves. */
    if (ftruncate(lock, 0) || write(lock, arguments[1], strlen(arguments[1])) < 0)
        dprintf(2, "tv: %s cannot be written to\n", place);
    pid_t child = fork();
    if (child == 0) {
        /* Of a session of its own, and a child of nobody who waits. */
        setsid();
        if (fork() == 0)
            become_it(arguments, environment, lock);
        _exit(0);
    }
    if (child > 0)
        waitpid(child, NULL, 0);
    close(lock);
}
