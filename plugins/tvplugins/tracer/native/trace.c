/* Runs a command and records the system calls that tell what it used.
 *
 *     taskvault-trace RECORD DONE TROUBLE IMAGE PROGRAM ARGUMENT...
 *
 * The first three are descriptors: the record is written to RECORD, DONE is closed when it is complete, and TROUBLE
 * gets the error number if PROGRAM cannot be executed.  IMAGE is what inside.c was made into, or empty.  The calling
 * process becomes the program, so that signals, terminal and exit status are its own; what traces it is a grandchild in
 * a session of its own.
 *
 * A seccomp filter stops a task at the calls of calls.h alone, all others run at full speed.  At each stop the
 * arguments are read with process_vm_readv, and when the call has returned one entry is appended to the record (shared.h).
 * What the code inside of programs notes itself passes the filter: it has the key.
 * The command cannot outlive its tracer unseen: PTRACE_O_EXITKILL.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "filter.h"
#include "inject.h"
#include "record.h"
#include "stops.h"
#include "tasks.h"

#ifndef __x86_64__
#error "Only x86-64 yet; elsewhere strace serves."
#endif

static pid_t command;

static void trace(int ready, int record, int done, const char *image, uint64_t key)
{
    char none = 0;
    setsid();
    if (chdir("/"))
        _exit(1);
    for (int number = 1; number < 32; number++)
        if (number != SIGALRM && number != SIGCHLD && number != SIGSEGV && number != SIGBUS)
            signal(number, SIG_IGN);
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        if (stream != ready) /* which may be there, if the command is to have none */
            close(stream);
    struct shared *shared = record_open(record, done);
    if (!shared) {
        none = (char)errno;
        _exit(write(ready, &none, 1) == 1);
    }
    if (key)
        inject_begin(image, key, record, shared);
    unsigned long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEEXEC |
                            PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;
    if (ptrace(PTRACE_SEIZE, command, 0, options))
        none = (char)errno;
    if (write(ready, &none, 1) != 1 || none)
        _exit(1);
    close(ready);
    task_of(command)->named = true;
    serve(command, key != 0);
    _exit(0);
}

static void fail(int trouble, int error)
{
    if (write(trouble, &error, sizeof error) != sizeof error)
        perror("taskvault-trace");
    _exit(127);
}

/* A number that nobody can guess and no argument is by chance. */
static uint64_t drawn_key(void)
{
    uint64_t number;
    return getrandom(&number, sizeof number, 0) == sizeof number ? number | 1ull << 63 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--calls")) {
        for (int number = 0; number < MOST_CALLS; number++)
            if (calls[number].name) {
                const struct call *call = &calls[number];
                printf("%d %s %d %d %d %d %d %d %d\n", number, call->name, call->base1, call->path1, call->base2,
                       call->path2, call->flags, call->address, call->forbidden);
            }
        return 0;
    }
    if (argc < 7) {
        fprintf(stderr, "usage: taskvault-trace RECORD DONE TROUBLE IMAGE PROGRAM ARGUMENT...\n");
        return 2;
    }
    int record = atoi(argv[1]), done = atoi(argv[2]), trouble = atoi(argv[3]);
    int ready[2], status;
    char answer = 1;
    if (pipe2(ready, O_CLOEXEC) || fcntl(record, F_SETFD, FD_CLOEXEC) || fcntl(done, F_SETFD, FD_CLOEXEC) ||
        fcntl(trouble, F_SETFD, FD_CLOEXEC))
        fail(trouble, errno);
    command = getpid();
    uint64_t key = *argv[4] ? drawn_key() : 0;
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* not from one of ours, where Yama would allow it */
    pid_t middle = fork();
    if (middle == 0) {
        pid_t tracer = fork();
        if (tracer == 0) {
            close(ready[0]);
            close(trouble);
            trace(ready[1], record, done, argv[4], key);
        }
        _exit(tracer < 0);
    }
    close(ready[1]);
    if (middle < 0 || waitpid(middle, &status, 0) != middle || status)
        fail(trouble, EAGAIN);
    if (read(ready[0], &answer, 1) != 1 || answer)
        fail(trouble, answer ? answer : EPERM);
    prctl(PR_SET_PTRACER, 0, 0, 0, 0);
    if (!filter_install(key))
        fail(trouble, errno);
    execv(argv[5], argv + 6);
    fail(trouble, errno);
}
