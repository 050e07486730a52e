/* Reads the arguments of a call that stopped when it begins, and notes it when it has returned. */
#define _GNU_SOURCE
#include "call_stops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "filter.h"

#define EMPTY_PATH 0x1000

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

/* A filter of its own may look where a call comes from, and refuse those that only we make. */
static void filters(struct task *task)
{
    task_turn_off(task);
    task->filtered = true;
}

bool call_begins(struct task *task)
{
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, task->tid, sizeof info, &info) <= 0)
        return false;
    if (info.seccomp.nr == SYS_seccomp && (info.seccomp.args[1] & SECCOMP_FILTER_FLAG_TSYNC))
        tasks_each(filters); /* all its threads, which are not known from other tasks */
    else if (info.seccomp.ret_data == FILTERING_CALL || info.seccomp.nr == SYS_seccomp)
        filters(task);
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

void call_returns(struct task *task)
{
    static char outcome[PATH_BYTES];
    int length = 0, path_length;
    int number = task->call;
    task->call = -1;
    if (!record_is_open())
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
            record_names_changed();
        if (number == SYS_chdir || number == SYS_fchdir)
            length = read_link(task->tid, "cwd", -1, outcome);
        else if ((number == SYS_openat || number == SYS_open || number == SYS_openat2) && is_magic(path, path_length))
            length = read_link(task->tid, "fd", result, outcome);
    }
    record_call(task->tid, number, result, task->flags, outcome, length, &task->strings);
}
