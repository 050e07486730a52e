/* Loaded into traced programs: makes the calls that only look, and that are made most, itself, and notes them.
 *
 * The tracer's filter lets a call pass only if it comes from one instruction, which is put at an address that the
 * tracer chose for this run.  What the functions here do not cover - the dynamic loader, what the C library calls from
 * within, static programs, direct system calls, everything that writes - is stopped and traced, so nothing depends on
 * this library for being seen; it only saves time.  It gives up silently wherever it cannot work.
 *
 * Calls that write are left to the tracer also because a program may be killed between a call and its note.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/single_threaded.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shared.h"

#define EXPORT __attribute__((visibility("default")))
#define NOTED 2048 /* a power of two */
#define USER_END 0x7ffffffff000 /* no program has memory from here on: the kernel refuses such a path, and must be asked */

typedef long (*gate_function)(long number, long a, long b, long c, long d);

typedef int (*open_function)(int, const char *, int, ...);

static open_function next_openat; /* the C library's, where threads can be cancelled */
static gate_function gate; /* NULL: nothing is accelerated */
static struct shared *shared;
static _Atomic uint64_t noted[NOTED];

/* syscall(number, a, b, c, d) by the C calling convention; the filter knows where `syscall` stands in it. */
static const unsigned char code[] = {
    0x48, 0x89, 0xf8, /* mov rax, rdi */
    0x48, 0x89, 0xf7, /* mov rdi, rsi */
    0x48, 0x89, 0xd6, /* mov rsi, rdx */
    0x48, 0x89, 0xca, /* mov rdx, rcx */
    0x4d, 0x89, 0xc2, /* mov r10, r8 */
    0x0f, 0x05,       /* syscall */
    0xc3,             /* ret */
};

static void remove_variables(void)
{
    char **to = environ;
    for (char **from = environ; from && *from; from++)
        if (strncmp(*from, "LD_PRELOAD=", 11) && strncmp(*from, ENVIRONMENT "=", sizeof ENVIRONMENT))
            *to++ = *from;
    if (to)
        *to = NULL;
}

/* TASKVAULT_TRACE is the gate's address, the tracer's process number and its descriptor of the shared file. */
__attribute__((constructor)) static void begin(void)
{
    unsigned long address;
    int tracer, descriptor;
    char path[64];
    const char *told = getenv(ENVIRONMENT);
    struct rlimit limit;
    struct stat status;
    if (!told || sscanf(told, "%lx %d %d", &address, &tracer, &descriptor) != 3)
        return;
    remove_variables();
    next_openat = (open_function)dlsym(RTLD_NEXT, "openat64");
    if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur != RLIM_INFINITY)
        return; /* what the record takes would be missing */
    void *page = mmap((void *)address, 4096, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page != (void *)address)
        return;
    memcpy(page, code, sizeof code);
    if (mprotect(page, 4096, PROT_READ | PROT_EXEC))
        return;
    gate_function made = (gate_function)address;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", tracer, descriptor);
    int file = (int)made(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC, 0);
    if (file < 0)
        return;
    void *mapped = MAP_FAILED;
    if (!syscall(SYS_fstat, file, &status))
        mapped = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    close(file);
    if (mapped == MAP_FAILED)
        return;
    shared = mapped;
    gate = made;
}

static bool noted_before(uint64_t key)
{
    return atomic_load_explicit(&noted[key & (NOTED - 1)], memory_order_relaxed) == key;
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9fb21c651e98df25ull;
    return hash ^ (hash >> 29);
}

static uint64_t hash_of(const char *path, size_t length)
{
    uint64_t hash = length, word;
    for (; length >= 8; length -= 8, path += 8) {
        memcpy(&word, path, 8);
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, path, length);
    return mix(hash, word);
}

static char *put(char *at, const char *text, uint16_t length)
{
    memcpy(at, &length, sizeof length);
    memcpy(at + sizeof length, text, length);
    return at + sizeof length + length;
}

/* Notes a call that has returned: once for a task, as long as no names change. */
static void note(int number, long result, uint64_t flags, const char *path)
{
    struct timespec now;
    size_t length = strnlen(path, PATH_MAX);
    int tid = (int)gate(SYS_gettid, 0, 0, 0, 0);
    uint32_t generation = atomic_load_explicit(&shared->generation, memory_order_relaxed);
    atomic_fetch_add_explicit(&shared->made[tid % SLOTS], 1, memory_order_relaxed);
    /* A relative path is always noted, for the directory may be another one; success is success, whatever number. */
    uint64_t key = mix(mix(mix(hash_of(path, length), (uint64_t)number << 32 | (uint32_t)tid), flags),
                       (uint64_t)generation << 32 | (uint32_t)(result < 0 ? result : 0));
    if (path[0] == '/' && noted_before(key))
        return;
    size_t bytes = (sizeof(struct head) + 6 + length + 7) & ~(size_t)7;
    uint64_t at = atomic_fetch_add(&shared->end, bytes);
    if (at + bytes > shared->room)
        return; /* the tracer sees by the end that something is missing */
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct head *head = (struct head *)((char *)shared + at);
    head->kind = (uint16_t)number;
    head->strings = 3;
    head->tid = tid;
    head->at_ns = (uint64_t)(now.tv_sec * 1000000000 + now.tv_nsec + shared->since_1970_ns);
    head->result = result;
    head->flags = flags;
    char *next = put((char *)(head + 1), "", 0);
    next = put(next, path, (uint16_t)length);
    put(next, "", 0);
    atomic_store_explicit(&head->length, (uint32_t)bytes, memory_order_release);
    atomic_store_explicit(&noted[key & (NOTED - 1)], key, memory_order_relaxed);
}

/* Whether the library may make this call; the others go the long way, where the tracer sees them: those relative to a
 * descriptor, those to names that only the kernel can follow, and all of programs with threads, where the path may
 * change between the kernel's reading and ours. */
static bool usable(int directory, const char *path)
{
    return gate && (uintptr_t)path >= 4096 && (uintptr_t)path < USER_END && __libc_single_threaded && (directory == AT_FDCWD || *path == '/') &&
           strncmp(path, "/proc/", 6) && strncmp(path, "/dev/", 5) &&
           atomic_load_explicit(&shared->end, memory_order_relaxed) < shared->room - (1 << 20);
}

/* Makes and notes a call; `flags` are what the record calls so.  Returns what the kernel does. */
static long look(int number, const char *path, long c, long d, uint64_t flags)
{
    long result = gate(number, AT_FDCWD, (long)path, c, d);
    if (result != -EFAULT && result != -ENAMETOOLONG)
        note(number, result, flags, path);
    return result;
}

static long answer(long result)
{
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

/* --- what programs call ----------------------------------------------------------------------------------------- */

static int open_at(int directory, const char *path, int flags, mode_t mode)
{
    bool only_reads = !(flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) && (flags & O_TMPFILE) != O_TMPFILE;
    if (only_reads && usable(directory, path))
        return (int)answer(look(SYS_openat, path, flags, 0, (unsigned)flags));
    if (next_openat)
        return next_openat(directory, path, flags, mode);
    return (int)syscall(SYS_openat, directory, path, flags, mode);
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(name)                                       \
    EXPORT int name(const char *path, int flags, ...)    \
    {                                                    \
        va_list arguments;                               \
        va_start(arguments, flags);                      \
        mode_t mode = mode_of(flags, arguments);         \
        va_end(arguments);                               \
        return open_at(AT_FDCWD, path, flags, mode);     \
    }
#define OPENAT(name)                                                    \
    EXPORT int name(int directory, const char *path, int flags, ...)    \
    {                                                                   \
        va_list arguments;                                              \
        va_start(arguments, flags);                                     \
        mode_t mode = mode_of(flags, arguments);                        \
        va_end(arguments);                                              \
        return open_at(directory, path, flags, mode);                   \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* `struct stat` and `struct stat64` are the same here. */
static int stat_at(int directory, const char *path, void *to, int flags)
{
    /* With an empty path it is about a descriptor, and may be about the directory: the tracer knows. */
    if (!(flags & AT_EMPTY_PATH) && usable(directory, path))
        return (int)answer(look(SYS_newfstatat, path, (long)to, flags, (unsigned)flags));
    return (int)syscall(SYS_newfstatat, directory, path, to, flags);
}

#define STAT(name, type, flags) \
    EXPORT int name(const char *path, struct type *to) { return stat_at(AT_FDCWD, path, to, flags); }
#define OLD_STAT(name, type, flags)                                                      \
    int name(int, const char *, struct type *);                                          \
    EXPORT int name(int version, const char *path, struct type *to)                      \
    {                                                                                    \
        return version == 1 ? stat_at(AT_FDCWD, path, to, flags) : (int)answer(-EINVAL); \
    }
STAT(stat, stat, 0)
STAT(stat64, stat64, 0)
STAT(lstat, stat, AT_SYMLINK_NOFOLLOW)
STAT(lstat64, stat64, AT_SYMLINK_NOFOLLOW)
OLD_STAT(__xstat, stat, 0)
OLD_STAT(__xstat64, stat64, 0)
OLD_STAT(__lxstat, stat, AT_SYMLINK_NOFOLLOW)
OLD_STAT(__lxstat64, stat64, AT_SYMLINK_NOFOLLOW)
EXPORT int fstatat(int directory, const char *path, struct stat *to, int flags)
{
    return stat_at(directory, path, to, flags);
}
EXPORT int fstatat64(int directory, const char *path, struct stat64 *to, int flags)
{
    return stat_at(directory, path, to, flags);
}

/* The C library would ask with an empty path, which the filter cannot tell from another. */
EXPORT int fstat(int descriptor, struct stat *to)
{
    return (int)syscall(SYS_fstat, descriptor, to);
}
EXPORT int fstat64(int descriptor, struct stat64 *to)
{
    return (int)syscall(SYS_fstat, descriptor, to);
}

EXPORT int access(const char *path, int mode)
{
    if (usable(AT_FDCWD, path))
        return (int)answer(look(SYS_faccessat, path, mode, 0, 0));
    return (int)syscall(SYS_access, path, mode);
}

EXPORT ssize_t readlink(const char *path, char *to, size_t bytes)
{
    if (usable(AT_FDCWD, path))
        return answer(look(SYS_readlinkat, path, (long)to, (long)bytes, 0));
    return syscall(SYS_readlink, path, to, bytes);
}

EXPORT ssize_t readlinkat(int directory, const char *path, char *to, size_t bytes)
{
    if (usable(directory, path))
        return answer(look(SYS_readlinkat, path, (long)to, (long)bytes, 0));
    return syscall(SYS_readlinkat, directory, path, to, bytes);
}

/* It would lock the record too, all of it. */
EXPORT int mlockall(int flags)
{
    gate = NULL;
    if (shared)
        munmap(shared, shared->room);
    shared = NULL;
    return (int)syscall(SYS_mlockall, flags);
}

enum { PLAIN = 0, UNUSUAL = 1 };

/* Appends to `to` what `path` names.  Returns PLAIN; UNUSUAL if a part of it is a symlink; or why a part of it cannot
 * be looked at, as a negative error number: then `to` ends with that part. */
static int walk_plain(const char *path, char *to)
{
    size_t length = *path == '/' ? 0 : strlen(to);
    if (length == 1)
        length = 0; /* the root directory itself */
    while (*path) {
        size_t part = strcspn(path, "/");
        const char *name = path;
        path += part;
        path += strspn(path, "/");
        if (!part || (part == 1 && name[0] == '.'))
            continue;
        char link[1];
        bool back = part == 2 && name[0] == '.' && name[1] == '.'; /* is what it comes after a directory? */
        if (back || length + part + 2 > PATH_MAX)
            return UNUSUAL;
        to[length] = '/';
        memcpy(to + length + 1, name, part);
        length += part + 1;
        to[length] = 0;
        long result = usable(AT_FDCWD, to) ? look(SYS_readlinkat, to, (long)link, sizeof link, 0) : UNUSUAL;
        if (result != -EINVAL)
            return result < 0 ? (int)result : UNUSUAL;
    }
    if (!length)
        to[length++] = '/';
    to[length] = 0;
    return PLAIN;
}

/* Compilers call it for every name of a header, there or not.  With symlinks, or a slash or dot at the end, the C
 * library's own decides. */
EXPORT char *realpath(const char *path, char *resolved)
{
    static char *(*original)(const char *, char *);
    char found[PATH_MAX];
    size_t length = path ? strnlen(path, PATH_MAX) : 0;
    bool plain = gate && length && length < PATH_MAX && path[length - 1] != '/' && path[length - 1] != '.';
    if (plain && (*path == '/' || syscall(SYS_getcwd, found, sizeof found) > 1)) {
        int walked = walk_plain(path, found);
        if (walked != UNUSUAL && resolved)
            strcpy(resolved, found); /* also of an error, as far as it went */
        if (walked < 0) {
            errno = -walked;
            return NULL;
        }
        if (walked == PLAIN)
            return resolved ? resolved : strdup(found);
    }
    if (!original)
        original = (char *(*)(const char *, char *))dlsym(RTLD_NEXT, "realpath");
    return original(path, resolved);
}

EXPORT char *canonicalize_file_name(const char *path)
{
    return realpath(path, NULL);
}
