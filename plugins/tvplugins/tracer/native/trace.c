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
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "inject.h"
#include "record.h"

#ifndef __x86_64__
#error "Only x86-64 yet; elsewhere strace serves."
#endif
#define LAST_KNOWN_CALL 462 /* mseal, Linux 6.10: those that are newer are traced as unknown */
#define MOST_CALLS 512
#define FOREIGN_CALL 0xfffe /* what the filter says of a call for another instruction set */
#define KNOWN_CALL 1
#define UNKNOWN_CALL 2
#define FILTERING_CALL 3 /* prctl(PR_SET_SECCOMP) */
#define PATH_BYTES 4096
#define EMPTY_PATH 0x1000
#define MOST_HELD_NS 1000000000 /* who made a task may have been killed before it was heard of */
#define SOON_NS 100000
#define LINGER_S 2 /* how long the record goes on after the command has ended */

struct call {
    const char *name;
    signed char base1, path1, base2, path2, flags, address;
    bool forbidden;
};

static const struct call calls[MOST_CALLS] = {
#define TRACED(name, b1, p1, b2, p2, f, a) [SYS_##name] = {#name, b1, p1, b2, p2, f, a, false},
#define FORBIDDEN(name) [SYS_##name] = {#name, -1, -1, -1, -1, -1, -1, true},
#include "calls.h"
#undef TRACED
#undef FORBIDDEN
};

/* A task, from its first stop to its end. */
struct task {
    pid_t tid;
    int call;          /* number of the call that has begun and must be reported, -1 for none */
    bool inside;       /* the code of inside.c is in its memory */
    bool named;        /* whoever made it has said so */
    bool held;         /* it has stopped for the first time and is not let go on before it is named */
    bool shares;       /* another task may write to its memory, and change a path after it was read */
    uint64_t address1, address2; /* of its paths */
    uint64_t flags;
    unsigned addresses; /* socket addresses among its strings */
    struct strings strings;
    struct task *next;
};

#define BUCKETS 1024
static struct task *tasks[BUCKETS];
static unsigned living, held, looked_again;
static int64_t held_since_ns;
static pid_t command;
static uint64_t key; /* with this as their sixth argument the calls of INSIDE pass; 0: none do */
static struct shared *shared;
static bool recording = true;
static volatile sig_atomic_t lingered;

static struct task *task_of(pid_t tid)
{
    struct task **at = &tasks[(unsigned)tid % BUCKETS];
    for (struct task *task = *at; task; task = task->next)
        if (task->tid == tid)
            return task;
    struct task *task = calloc(1, sizeof *task);
    if (!task)
        _exit(1); /* everything that is traced ends with us, and the record has no end */
    task->tid = tid;
    task->call = -1;
    task->next = *at;
    *at = task;
    living++;
    return task;
}

static void forget(pid_t tid)
{
    for (struct task **at = &tasks[(unsigned)tid % BUCKETS]; *at; at = &(*at)->next)
        if ((*at)->tid == tid) {
            struct task *task = *at;
            *at = task->next;
            held -= task->held;
            strings_free(&task->strings);
            free(task);
            living--;
            return;
        }
}

/* --- reading the memory and the descriptors of a task ----------------------------------------------------------- */

static bool read_memory(pid_t tid, uint64_t address, void *to, size_t bytes)
{
    struct iovec here = {to, bytes}, there = {(void *)address, bytes};
    return process_vm_readv(tid, &here, 1, &there, 1, 0) == (ssize_t)bytes;
}

/* Reads a string page by page, since the next page may not be there; returns its length, or -1. */
static int read_string(pid_t tid, uint64_t address, char *to)
{
    int length = 0;
    while (length < PATH_BYTES) {
        size_t bytes = 4096 - ((address + length) & 4095);
        if (!length && bytes > 256)
            bytes = 256; /* most paths are short */
        if (bytes > (size_t)(PATH_BYTES - length))
            bytes = PATH_BYTES - length;
        if (!read_memory(tid, address + length, to + length, bytes))
            return -1;
        char *end = memchr(to + length, 0, bytes);
        if (end)
            return end - to;
        length += bytes;
    }
    return -1;
}

/* The kernel's path for /proc/TID/NAME; returns its length, 0 if there is none. */
static int read_link(pid_t tid, const char *name, long long number, char *to)
{
    char path[64];
    if (number >= 0)
        snprintf(path, sizeof path, "/proc/%d/%s/%lld", tid, name, number);
    else
        snprintf(path, sizeof path, "/proc/%d/%s", tid, name);
    ssize_t length = readlink(path, to, PATH_BYTES);
    return length < 0 ? 0 : (int)length;
}

static void add_place(struct task *task, int base, int path, const uint64_t *args)
{
    static char text[PATH_BYTES];
    int length = 0;
    if (path >= 0 && !(args[path] == 0 && (task->call == SYS_utimensat || task->call == SYS_futimesat)))
        length = read_string(task->tid, args[path], text);
    strings_add(&task->strings, text, length);
    bool relative = length == 0 || (length > 0 && text[0] != '/');
    /* A link or symlink may be given as text that is relative to nothing; its first place has no descriptor then. */
    if (base >= 0 && relative && (int)args[base] != AT_FDCWD)
        length = (int)args[base] < 0 ? 0 : read_link(task->tid, "fd", (int)args[base], text);
    else
        length = 0;
    strings_add(&task->strings, text, length);
}

static void add_address(struct task *task, uint64_t address, uint64_t bytes)
{
    char raw[128];
    if (!address || bytes < sizeof(sa_family_t))
        return;
    if (bytes > sizeof raw)
        bytes = sizeof raw;
    bool there = read_memory(task->tid, address, raw, bytes);
    strings_add(&task->strings, raw, there ? (int)bytes : -1);
    task->addresses++;
}

static void add_message(struct task *task, uint64_t at)
{
    struct msghdr message;
    if (read_memory(task->tid, at, &message, sizeof message)) {
        add_address(task, (uint64_t)message.msg_name, message.msg_namelen);
        return;
    }
    strings_add(&task->strings, NULL, -1);
    task->addresses++;
}

static void add_addresses(struct task *task, const uint64_t *args)
{
    switch (task->call) {
    case SYS_sendto:
        add_address(task, args[4], args[5]);
        break;
    case SYS_sendmsg:
        add_message(task, args[1]);
        break;
    case SYS_sendmmsg:
        for (uint64_t number = 0; number < args[2] && number < 1024; number++)
            add_message(task, args[1] + number * sizeof(struct mmsghdr));
        break;
    default:
        add_address(task, args[1], args[2]);
    }
}

static bool is_magic(const char *path, int length)
{
    return length > 5 && (!memcmp(path, "/proc/", 6) || !memcmp(path, "/dev/", 5));
}

/* --- what is there before a call changes it ------------------------------------------------------------------------ */

/* Whether a call that succeeds may leave nothing of what is at this place of it. */
static bool changes_place(int number, uint64_t flags)
{
    switch (number) {
    case SYS_open:
    case SYS_openat:
    case SYS_openat2:
        return (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) && (flags & O_TMPFILE) != O_TMPFILE;
    case SYS_creat:
    case SYS_truncate:
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_rmdir:
    case SYS_rename:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_chmod:
    case SYS_fchmodat:
    case SYS_chown:
    case SYS_lchown:
    case SYS_fchownat:
    case SYS_utime:
    case SYS_utimes:
    case SYS_utimensat:
        return true;
    default:
        return false; /* what links and makes directories fails where something is */
    }
}

static bool follows(int number, uint64_t flags)
{
    switch (number) {
    case SYS_open:
    case SYS_openat:
    case SYS_openat2:
        return !(flags & O_NOFOLLOW) && !((flags & O_CREAT) && (flags & O_EXCL));
    case SYS_creat:
    case SYS_truncate:
    case SYS_chmod:
    case SYS_fchmodat:
    case SYS_chown:
    case SYS_utime:
    case SYS_utimes:
        return true;
    case SYS_fchownat:
    case SYS_utimensat:
        return !(flags & AT_SYMLINK_NOFOLLOW);
    default:
        return false;
    }
}

/* Adds what is at a place now, or an empty string if that cannot be told. */
static void add_before(struct task *task, unsigned place, int base, const uint64_t *args)
{
    static char where[PATH_BYTES + 64];
    struct stat status;
    struct before before = {0};
    int length, start = 0;
    const char *path = strings_get(&task->strings, place * 2, &length);
    if (length <= 0 || is_magic(path, length)) {
        strings_add(&task->strings, "", 0);
        return;
    }
    if (path[0] != '/' && base >= 0 && (int)args[base] != AT_FDCWD)
        start = snprintf(where, sizeof where, "/proc/%d/fd/%d/", task->tid, (int)args[base]);
    else if (path[0] != '/')
        start = snprintf(where, sizeof where, "/proc/%d/cwd/", task->tid);
    memcpy(where + start, path, (size_t)length);
    where[start + length] = 0;
    if (!fstatat(AT_FDCWD, where, &status, follows(task->call, task->flags) ? 0 : AT_SYMLINK_NOFOLLOW)) {
        before.mode = status.st_mode;
        before.links = (uint32_t)status.st_nlink;
        before.owner = status.st_uid;
        before.group = status.st_gid;
        before.size = (uint64_t)status.st_size;
        before.mtime_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
    } else if (errno != ENOENT) {
        strings_add(&task->strings, "", 0);
        return;
    }
    strings_add(&task->strings, (const char *)&before, sizeof before);
}

/* --- stops -------------------------------------------------------------------------------------------------------- */

static void resume(pid_t tid, enum __ptrace_request how, int signal_number)
{
    ptrace(how, tid, 0, signal_number); /* it may have been killed meanwhile: then its end is reported next */
}

static void turn_off(const struct task *task)
{
    if (recording && task->inside && !inject_turn_off(task->tid))
        record_trouble("a program could not be told to leave its calls to the tracer");
}

/* A call begins.  Returns whether its result must be waited for. */
static bool begin_call(struct task *task)
{
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, task->tid, sizeof info, &info) <= 0)
        return false;
    if (info.seccomp.ret_data == FILTERING_CALL || info.seccomp.nr == SYS_seccomp)
        turn_off(task); /* a filter of its own may look where a call comes from */
    if (info.seccomp.ret_data == FILTERING_CALL)
        return false;
    if (info.seccomp.ret_data == FOREIGN_CALL) {
        record_trouble("a program for another instruction set ran, whose calls are not known");
        return false;
    }
    task->call = (int)info.seccomp.nr;
    task->addresses = 0;
    task->address1 = task->address2 = 0;
    strings_clear(&task->strings);
    if (info.seccomp.ret_data != KNOWN_CALL || task->call >= MOST_CALLS || !calls[task->call].name)
        return true; /* of a filter of its own, if it is not ours */
    const struct call *call = &calls[task->call];
    uint64_t args[6];
    memcpy(args, info.seccomp.args, sizeof args);
    task->flags = call->flags >= 0 ? args[(int)call->flags] : 0;
    if (call->address >= 0) {
        add_addresses(task, args);
        if (!task->addresses)
            task->call = -1; /* sent to where it was connected before */
        return task->call >= 0;
    }
    if (task->call == SYS_openat2) {
        uint64_t how[3] = {0};
        if (!read_memory(task->tid, args[2], how, args[3] < sizeof how ? args[3] : sizeof how))
            record_trouble("the flags of a call could not be read");
        task->flags = how[0];
        if (how[2] & 0x10)
            record_trouble("a process opened a file below a root of its own (openat2)");
    }
    if ((task->flags & EMPTY_PATH) && (task->call == SYS_newfstatat || task->call == SYS_statx)) {
        char first = 1;
        if (read_memory(task->tid, args[1], &first, 1) && !first) {
            task->call = -1; /* fstat, as new C libraries do it: what is open was recorded before */
            return false;
        }
    }
    if (call->base1 >= 0 || call->path1 >= 0)
        add_place(task, call->base1, call->path1, args);
    if (call->path2 >= 0)
        add_place(task, call->base2, call->path2, args);
    if (call->path1 >= 0 && changes_place(task->call, task->flags)) {
        add_before(task, 0, call->base1, args);
        if (call->path2 >= 0)
            add_before(task, 1, call->base2, args);
    }
    task->address1 = call->path1 >= 0 ? args[(int)call->path1] : 0;
    task->address2 = call->path2 >= 0 ? args[(int)call->path2] : 0;
    return true;
}

/* Whether another thread has written over the paths since they were read: the kernel may have seen either. */
static bool changed_since(struct task *task)
{
    static char text[PATH_BYTES];
    uint64_t addresses[2] = {task->address1, task->address2};
    for (int number = 0; number < 2; number++) {
        int length, before;
        if (!addresses[number])
            continue;
        const char *was = strings_get(&task->strings, number * 2, &before);
        length = read_string(task->tid, addresses[number], text);
        if (length != before || (length > 0 && memcmp(text, was, length)))
            return true;
    }
    return false;
}

static bool changes_names(int number, uint64_t flags)
{
    switch (number) {
    case SYS_openat:
    case SYS_open:
    case SYS_openat2:
        return flags & O_CREAT;
    case SYS_stat:
    case SYS_lstat:
    case SYS_newfstatat:
    case SYS_statx:
    case SYS_access:
    case SYS_faccessat:
    case SYS_faccessat2:
    case SYS_readlink:
    case SYS_readlinkat:
    case SYS_getdents64:
        return false;
    default:
        return true;
    }
}

static void end_call(struct task *task)
{
    static char outcome[PATH_BYTES];
    int length = 0, path_length;
    int number = task->call;
    task->call = -1;
    if (!recording)
        return; /* it began before the record was closed */
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, task->tid, sizeof info, &info) <= 0 || info.op != PTRACE_SYSCALL_INFO_EXIT) {
        record_trouble("the result of a call could not be read");
        return;
    }
    long long result = info.exit.rval;
    if (result <= -512 && result >= -516)
        return; /* interrupted: it is made again, and reported then */
    if (number >= MOST_CALLS || !calls[number].name) {
        record_call(task->tid, UNKNOWN, result, number, NULL, 0, &(struct strings){0});
        return;
    }
    if (task->shares && task->strings.bytes && changed_since(task))
        record_trouble("a path was changed by another thread while a call read it");
    if (task->addresses) {
        for (unsigned at = 0; at < task->addresses; at++) {
            const char *raw = strings_get(&task->strings, at, &length);
            record_call(task->tid, number, result, 0, raw, length, &(struct strings){0});
        }
        return;
    }
    if (result >= 0) {
        const char *path = strings_get(&task->strings, 0, &path_length);
        if (changes_names(number, task->flags))
            atomic_fetch_add(&shared->generation, 1);
        if (number == SYS_chdir || number == SYS_fchdir)
            length = read_link(task->tid, "cwd", -1, outcome);
        else if ((number == SYS_openat || number == SYS_open || number == SYS_openat2) && is_magic(path, path_length))
            length = read_link(task->tid, "fd", result, outcome);
    }
    record_call(task->tid, number, result, task->flags, outcome, length, &task->strings);
}

/* What the kernel tells a new program of itself. */
struct auxiliary {
    uint64_t base, kernel, name; /* of its loader, of the page that the kernel gives it, of the path it was executed by */
};

static struct auxiliary read_auxiliary(pid_t tid)
{
    struct auxiliary told = {0};
    uint64_t words[128];
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/auxv", tid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = file < 0 ? 0 : read(file, words, sizeof words);
    if (file >= 0)
        close(file);
    for (ssize_t at = 0; (at + 2) * (ssize_t)sizeof *words <= bytes; at += 2)
        switch (words[at]) {
        case AT_BASE: told.base = words[at + 1]; break;
        case AT_SYSINFO_EHDR: told.kernel = words[at + 1]; break;
        case AT_EXECFN: told.name = words[at + 1]; break;
        }
    return told;
}

static void executed(pid_t tid)
{
    static char program[PATH_BYTES + 1], header[PATH_BYTES], path[PATH_BYTES];
    unsigned long former = tid;
    ptrace(PTRACE_GETEVENTMSG, tid, 0, &former);
    struct task *task = task_of((pid_t)former);
    int length = read_link(tid, "exe", -1, program);
    snprintf(path, sizeof path, "/proc/%d/exe", tid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = file < 0 ? 0 : read(file, header, sizeof header);
    if (file >= 0)
        close(file);
    struct auxiliary told = read_auxiliary(tid);
    if (task->call != SYS_execve && task->call != SYS_execveat) {
        /* The filter let it pass, so it came with the key. */
        if (key && recording)
            atomic_fetch_sub(&shared->under_way, 1);
        else if (recording)
            record_trouble("a program was executed without a call that was seen");
        task->flags = 0;
        strings_clear(&task->strings);
        strings_add(&task->strings, path, read_string(tid, told.name, path));
        strings_add(&task->strings, "", 0);
    }
    strings_add(&task->strings, header, bytes < 0 ? 0 : (int)bytes);
    record_call(tid, EXECUTED, (long long)former, task->flags, program, length, &task->strings);
    if ((pid_t)former != tid)
        forget((pid_t)former);
    task = task_of(tid);
    task->call = -1;
    task->shares = false;
    task->inside = recording && inject(tid, told.base, told.kernel);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A new task may stop before the kernel tells who made it: it waits for that, so that nothing is told of it before.
 * It may even end whoever made it, by executing a program, and then that would never be told. */
static bool hold(struct task *task)
{
    if (task->named)
        return false;
    if (!held) {
        held_since_ns = now_ns();
        looked_again = 0;
    }
    held += !task->held;
    task->held = true;
    return true;
}

static void let_go(struct task *task)
{
    if (!task->held)
        return;
    task->held = false;
    held--;
    resume(task->tid, PTRACE_CONT, 0);
}

static void let_all_go(void)
{
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++)
        for (struct task *task = tasks[bucket]; task; task = task->next) {
            task->inside |= task->held; /* it may be */
            task->named = true;
            let_go(task);
        }
}

/* Nothing is to be done but to hear who made the tasks that are held, which takes microseconds if all goes well. */
static void wait_for_names(void)
{
    int64_t waited_ns = now_ns() - held_since_ns;
    /* On a busy machine we may be who did not run for so long. */
    if (waited_ns > MOST_HELD_NS && ++looked_again > 1000)
        let_all_go();
    else if (waited_ns < SOON_NS)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = SOON_NS}, NULL);
}

static void shares(struct task *task)
{
    if (!task->shares)
        turn_off(task);
    task->shares = true;
}

static void cloned(pid_t tid)
{
    unsigned long child = 0;
    uint64_t flags = 0;
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &child) || ptrace(PTRACE_GETREGS, tid, 0, &registers)) {
        record_trouble("a process was started that could not be looked at");
        return;
    }
    if (registers.orig_rax == SYS_clone)
        flags = registers.rdi;
    else if (registers.orig_rax == SYS_clone3 && !read_memory(tid, registers.rdi, &flags, sizeof flags))
        record_trouble("a process was started that could not be looked at");
    record_call(tid, CLONED, (long long)child, flags, NULL, 0, &(struct strings){0});
    struct task *made = task_of((pid_t)child);
    if (!made->named)
        made->inside = task_of(tid)->inside;
    made->named = true;
    /* After vfork the maker waits, but its other threads do not. */
    if ((flags & CLONE_VM) && !(flags & CLONE_VFORK))
        shares(task_of(tid));
    made->shares = (flags & CLONE_VM) && task_of(tid)->shares;
    let_go(made);
}

static void stopped(pid_t tid, int status)
{
    int signal_number = WSTOPSIG(status);
    struct task *task = task_of(tid);
    switch (status >> 16) {
    case PTRACE_EVENT_SECCOMP:
        resume(tid, recording && begin_call(task) ? PTRACE_SYSCALL : PTRACE_CONT, 0);
        return;
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE:
        cloned(tid);
        break;
    case PTRACE_EVENT_EXEC:
        executed(tid);
        break;
    case PTRACE_EVENT_STOP:
        if (signal_number == SIGSTOP || signal_number == SIGTSTP || signal_number == SIGTTIN ||
            signal_number == SIGTTOU) {
            resume(tid, PTRACE_LISTEN, 0); /* stopped for job control: it stays so until SIGCONT */
            return;
        }
        if (hold(task))
            return;
        break;
    default:
        if (signal_number == (SIGTRAP | 0x80)) {
            if (task->call >= 0)
                end_call(task);
            break;
        }
        if ((signal_number == SIGSEGV || signal_number == SIGBUS) && inject_takes_fault(tid))
            signal_number = 0;
        /* A signal on its way; within a call its end is still to come. */
        resume(tid, task->call >= 0 ? PTRACE_SYSCALL : PTRACE_CONT, signal_number);
        return;
    }
    resume(tid, PTRACE_CONT, 0);
}

static void ended(pid_t tid, int status)
{
    struct task *task = task_of(tid);
    if (task->call >= 0)
        record_trouble("a process ended while a call had not returned");
    forget(tid);
    record_call(tid, ENDED, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), 0, NULL, 0,
                &(struct strings){0});
}

static void linger_over(int number)
{
    (void)number;
    lingered = 1;
}

/* Returns when nothing is left to trace.  What the command leaves behind still needs us, but is recorded no more. */
static void serve(void)
{
    int status;
    for (;;) {
        pid_t tid = waitpid(-1, &status, __WALL | (held ? WNOHANG : 0));
        if (tid < 0 && errno == ECHILD)
            break;
        if (tid == 0)
            wait_for_names();
        if (lingered && recording) {
            record_trouble("a process was left running");
            record_close();
            recording = false;
        }
        if (tid <= 0)
            continue;
        if (WIFSTOPPED(status)) {
            stopped(tid, status);
            continue;
        }
        ended(tid, status);
        if (tid == command && living)
            alarm(LINGER_S);
    }
    if (recording) {
        if (atomic_load(&shared->under_way))
            record_trouble("a process ended while a call had not returned");
        record_call(0, END, 0, 0, NULL, 0, &(struct strings){0});
        record_close();
    }
}

/* --- beginning ---------------------------------------------------------------------------------------------------- */

#define KEY_AT offsetof(struct seccomp_data, args[5])

static bool passes(unsigned number)
{
    switch (number) {
#define CALL(name) case SYS_##name:
        INSIDE(CALL)
#undef CALL
        return true;
    default:
        return false;
    }
}

static unsigned add_filter(struct sock_filter *filter, unsigned at, unsigned number)
{
    if (key && passes(number)) {
        filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 6);
        filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, KEY_AT);
        filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)key, 0, 3);
        filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, KEY_AT + 4);
        filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(key >> 32), 0, 1);
        filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | KNOWN_CALL);
        return at;
    }
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | KNOWN_CALL);
    return at;
}

/* Stops at the calls of calls.h, at those that are newer than this program, and at those of another instruction set. */
static bool install_filter(void)
{
    static struct sock_filter filter[3 * MOST_CALLS];
    unsigned at = 0;
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | FOREIGN_CALL);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, LAST_KNOWN_CALL, 0, 1);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | UNKNOWN_CALL);
    /* sendto without an address goes where the socket was connected to, and is frequent. */
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sendto, 0, 6);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[4]));
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[4]) + 4);
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | KNOWN_CALL);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 4);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]));
    filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_SECCOMP, 0, 1);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | FILTERING_CALL);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    for (unsigned number = 0; number < MOST_CALLS; number++)
        if (calls[number].name && number != SYS_sendto)
            at = add_filter(filter, at, number);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {(unsigned short)at, filter};
    return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void trace(int ready, int record, int done, const char *image)
{
    char none = 0;
    setsid();
    if (chdir("/"))
        _exit(1);
    for (int number = 1; number < 32; number++)
        if (number != SIGALRM && number != SIGCHLD && number != SIGSEGV && number != SIGBUS)
            signal(number, SIG_IGN);
    /* Without SA_RESTART, so that waitpid comes back. */
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = linger_over}, NULL);
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        if (stream != ready) /* which may be there, if the command is to have none */
            close(stream);
    shared = record_open(record, done);
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
    serve();
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
    if (*argv[4])
        key = drawn_key();
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); /* not from one of ours, where Yama would allow it */
    pid_t middle = fork();
    if (middle == 0) {
        pid_t tracer = fork();
        if (tracer == 0) {
            close(ready[0]);
            close(trouble);
            trace(ready[1], record, done, argv[4]);
        }
        _exit(tracer < 0);
    }
    close(ready[1]);
    if (middle < 0 || waitpid(middle, &status, 0) != middle || status)
        fail(trouble, EAGAIN);
    if (read(ready[0], &answer, 1) != 1 || answer)
        fail(trouble, answer ? answer : EPERM);
    prctl(PR_SET_PTRACER, 0, 0, 0, 0);
    if (!install_filter())
        fail(trouble, errno);
    execv(argv[5], argv + 6);
    fail(trouble, errno);
}
