/* Code that is mapped into traced programs: makes the calls that are most frequent itself, and notes them.
 *
 * Where the C library and its loader make such a call - `mov $NUMBER,%eax; syscall` - programs have code in which the
 * `mov` is replaced by a jump to here (texts.c; the `syscall` stays, and is where everything goes that is not understood).  The tracer's filter lets the call
 * pass only with a key as its sixth argument, which it does not have, that was drawn for this run.  All others stop: nothing
 * depends on this code for being seen; it only saves time.  It gives up silently wherever it cannot work.
 *
 * It runs where a system call would, on any stack and before the program has any libraries: it has none either, uses
 * no vector registers and little stack, and changes nothing but what a system call may.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "inside.h"

#define BEGINNING 16 /* bytes of a path that are looked at before the call */
#define BASE_BYTES 256
#define ROOM_LEFT (1 << 20)

bool handle(struct frame *frame);
__attribute__((visibility("hidden"))) int peek(const char *path, char *to);

/* The jump to `begin` and four offsets are what the tracer knows of the image (inject.c). */
__asm__(".pushsection .head, \"ax\"\n"
        ".globl image\n"
        ".hidden image\n"
        "image: jmp begin\n"
        ".balign 8\n"
        ".quad entry - image, peek - image, peek_end - image, peek_unreadable - image\n"
        /* Copies the beginning of a path; where that cannot be read the tracer lets it go on at the second label. */
        "peek: mov $16, %ecx\n"
        "1: movzbl (%rdi), %eax\n"
        "mov %al, (%rsi)\n"
        "inc %rdi\n"
        "inc %rsi\n"
        "test %eax, %eax\n"
        "jz 2f\n"
        "dec %ecx\n"
        "jnz 1b\n"
        "2: mov $1, %eax\n"
        "ret\n"
        "peek_end:\n"
        "peek_unreadable: xor %eax, %eax\n"
        "ret\n"
        /* Comes from a stub: the call's number in eax, in rcx where its `syscall` is; those two and r11 a system call
         * may change.  Leaves alone the 128 bytes below the stack pointer, which belong to the function. */
        "entry: lea -128(%rsp), %rsp\n"
        "pushfq\n"
        "push %rbp\n"
        "mov %rsp, %rbp\n"
        "push %rcx\n"
        "push %rax\n"
        "push %r9\n"
        "push %r8\n"
        "push %r10\n"
        "push %rdx\n"
        "push %rsi\n"
        "push %rdi\n"
        "mov %rsp, %rdi\n"
        "and $-16, %rsp\n"
        "cld\n"
        "call handle\n"
        "lea -64(%rbp), %rsp\n"
        "mov %eax, %r11d\n"
        "pop %rdi\n"
        "pop %rsi\n"
        "pop %rdx\n"
        "pop %r10\n"
        "pop %r8\n"
        "pop %r9\n"
        "pop %rax\n"
        "pop %rcx\n"
        "pop %rbp\n"
        "test %r11b, %r11b\n"
        "jz 1f\n"
        "lea 2(%rcx), %rcx\n" /* made: on behind the `syscall` */
        "1: popfq\n"
        "lea 128(%rsp), %rsp\n"
        "jmp *%rcx\n"
        ".popsection\n");

/* --- noting calls ------------------------------------------------------------------------------------------------- */

/* What the arguments of a call are: places of paths and of what they are relative to. */
static const struct shape {
    signed char base1, path1, base2, path2, flags;
} shapes[] = {
#define TRACED(name, b1, p1, b2, p2, f, a) [SYS_##name] = {b1, p1, b2, p2, f},
#define FORBIDDEN(name)
#include "calls.h"
#undef TRACED
#undef FORBIDDEN
};

/* A call, as it will be noted. */
struct looked {
    int number;
    bool changes;   /* names or contents, if it succeeds */
    bool is_opened; /* and the kernel's name for what is open is the outcome */
    uint64_t flags;
    const char *path, *second; /* NULL if there is none */
    int directory;
    uint16_t base_length, befores;
    char base[BASE_BYTES];
    struct told_before {
        uint16_t length; /* 0: not known */
        struct before what;
    } before[2];
};

static bool noted_before(struct state *state, uint64_t key)
{
    return atomic_load_explicit(&state->noted[key % NOTED], memory_order_relaxed) == key;
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
        __builtin_memcpy(&word, path, 8);
        hash = mix(hash, word);
    }
    word = 0;
    copy(&word, path, length);
    return mix(hash, word);
}

static size_t length_of(const char *path)
{
    size_t length = 0;
    while (length < PATH_MAX && path[length])
        length++;
    return length;
}

static char *put(char *at, const char *text, size_t length)
{
    uint16_t size = (uint16_t)length;
    __builtin_memcpy(at, &size, sizeof size);
    copy(at + sizeof size, text, length);
    return at + sizeof size + length;
}

/* The kernel's path of a descriptor; its length, 0 if there is none or it is too long. */
static size_t path_of(struct state *state, int descriptor, char *to)
{
    char name[sizeof "/proc/self/fd/" + 10] = "/proc/self/fd/", digits[10];
    size_t at = sizeof "/proc/self/fd/" - 1, count = 0;
    if (descriptor < 0)
        return 0;
    do
        digits[count++] = (char)('0' + descriptor % 10);
    while (descriptor /= 10);
    while (count)
        name[at++] = digits[--count];
    name[at] = 0;
    long length = passing(state, SYS_readlinkat, AT_FDCWD, (long)name, (long)to, BASE_BYTES);
    return failed(length) || length >= BASE_BYTES ? 0 : (size_t)length;
}

/* Notes a call that has returned; one that only looks once for a task, as long as no names change. */
static void note(struct state *state, struct looked *call, long result)
{
    struct shared *shared = state->shared;
    struct timespec now;
    size_t length = length_of(call->path), second = call->second ? length_of(call->second) : 0, told = 0;
    int tid = (int)direct(SYS_gettid, 0, 0, 0, 0, 0, 0);
    uint32_t generation = atomic_load_explicit(&shared->generation, memory_order_relaxed);
    /* A relative path is always noted, for the directory may be another one; success is success, whatever number. */
    uint64_t key = mix(mix(mix(hash_of(call->path, length), (uint64_t)call->number << 32 | (uint32_t)tid), call->flags),
                       (uint64_t)generation << 32 | (uint32_t)(result < 0 ? result : 0));
    bool looks = !call->changes && call->path[0] == '/';
    if (looks && noted_before(state, key))
        return;
    if (call->is_opened && result >= 0)
        told = path_of(state, (int)result, call->base); /* whose path is absolute and has no base */
    else if (call->changes && result >= 0)
        atomic_fetch_add(&shared->generation, 1);
    size_t bytes = sizeof(struct head) + 6 + told + length + call->base_length + (call->second ? 4 + second : 0);
    for (unsigned number = 0; number < call->befores; number++)
        bytes += 2 + call->before[number].length;
    bytes = (bytes + 7) & ~(size_t)7;
    uint64_t at = atomic_fetch_add(&shared->end, bytes);
    if (at + bytes > shared->room)
        return; /* the tracer sees by the end that something is missing */
    state->clock(CLOCK_MONOTONIC, &now);
    struct head *head = (struct head *)((char *)shared + at);
    head->kind = (uint16_t)call->number;
    head->strings = (uint16_t)((call->second ? 5 : 3) + call->befores);
    head->tid = tid;
    head->at_ns = (uint64_t)(now.tv_sec * 1000000000 + now.tv_nsec + shared->since_1970_ns);
    head->result = result;
    head->flags = call->flags;
    char *next = put((char *)(head + 1), call->base, told);
    next = put(next, call->path, length);
    next = put(next, call->base, call->base_length);
    if (call->second)
        next = put(put(next, call->second, second), "", 0);
    for (unsigned number = 0; number < call->befores; number++)
        next = put(next, (const char *)&call->before[number].what, call->before[number].length);
    atomic_store_explicit(&head->length, (uint32_t)bytes, memory_order_release);
    if (looks)
        atomic_store_explicit(&state->noted[key % NOTED], key, memory_order_relaxed);
}

/* --- calls -------------------------------------------------------------------------------------------------------- */

/* Looks what is at a place before a call changes it, as the tracer does for those that stop. */
static void look_before(struct state *state, struct looked *call, const char *path)
{
    struct told_before *before = &call->before[call->befores++];
    struct stat status;
    bool follows = (call->number == SYS_open || call->number == SYS_openat) && !(call->flags & O_NOFOLLOW) &&
                   !((call->flags & O_CREAT) && (call->flags & O_EXCL));
    before->length = 0;
    if (!*path || call->is_opened)
        return;
    long result = passing(state, SYS_newfstatat, call->directory, (long)path, (long)&status,
                              follows ? 0 : AT_SYMLINK_NOFOLLOW);
    if (result && result != -ENOENT)
        return;
    before->length = sizeof before->what;
    before->what = (struct before){0};
    if (!result) {
        before->what.mode = status.st_mode;
        before->what.links = (uint32_t)status.st_nlink;
        before->what.size = (uint64_t)status.st_size;
        before->what.mtime_ns = (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec;
    }
}

static bool is_magic(const char *beginning)
{
    return same(beginning, "/proc/", 6) || same(beginning, "/dev/", 5);
}

static bool is_frequent(const char *beginning)
{
    return same(beginning, "/dev/null", 10) || same(beginning, "/proc/filesystems", BEGINNING);
}

/* Whether a path can be read and names something that not only the kernel can follow. */
static bool is_plain(const char *path, char *beginning)
{
    return peek(path, beginning) && (!is_magic(beginning) || is_frequent(beginning));
}

static bool changes(int number, uint64_t flags)
{
    switch (number) {
    case SYS_open:
    case SYS_openat:
        return flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);
    case SYS_unlink:
    case SYS_unlinkat:
    case SYS_mkdir:
    case SYS_rename:
        return true;
    default:
        return false;
    }
}

static bool is_inside(long number)
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

enum { OTHER, FSTAT, UNDERSTOOD };

/* What a call is about.  OTHER goes the long way, where the tracer sees it. */
static int understand(struct state *state, const struct frame *frame, struct looked *call)
{
    const struct shape *shape = &shapes[frame->number];
    char beginning[BEGINNING];
    call->number = (int)frame->number;
    call->directory = shape->base1 < 0 ? AT_FDCWD : (int)frame->arguments[(int)shape->base1];
    call->flags = shape->flags < 0 ? 0 : (uint64_t)frame->arguments[(int)shape->flags];
    call->path = shape->path1 < 0 ? "" : (const char *)frame->arguments[(int)shape->path1];
    call->second = shape->path2 < 0 ? NULL : (const char *)frame->arguments[(int)shape->path2];
    call->base_length = call->befores = 0;
    if ((call->second && !is_plain(call->second, beginning)) || !is_plain(call->path, beginning))
        return OTHER;
    if (call->number == SYS_newfstatat && (call->flags & AT_EMPTY_PATH))
        return *beginning ? OTHER : FSTAT; /* fstat, as new C libraries do it: what is open was noted before */
    bool opens = call->number == SYS_open || call->number == SYS_openat;
    if (opens && (call->flags & O_TMPFILE) == O_TMPFILE)
        return OTHER;
    if (*beginning != '/' && call->directory != AT_FDCWD) {
        call->base_length = (uint16_t)path_of(state, call->directory, call->base);
        if (!call->base_length)
            return OTHER;
    }
    call->is_opened = opens && is_magic(beginning);
    call->changes = changes(call->number, call->flags);
    return UNDERSTOOD;
}

/* It would lock the record too, all of it. */
static bool let_go(struct state *state)
{
    atomic_store(&state->off, 1);
    direct(SYS_munmap, (long)state->shared, (long)state->shared->room, 0, 0, 0, 0);
    return false;
}

/* Makes a call, if it is understood.  Returns whether it was made. */
bool handle(struct frame *frame)
{
    struct state *state = state_here();
    struct looked call;
    if (atomic_load(&state->off))
        return false;
    if (frame->number == SYS_mmap)
        return map(state, frame);
    if (frame->number == SYS_mlockall)
        return let_go(state);
    if (!is_inside(frame->number))
        return false;
    struct shared *shared = state->shared;
    if (atomic_load_explicit(&shared->end, memory_order_relaxed) + ROOM_LEFT > shared->room)
        return false;
    int what = understand(state, frame, &call);
    if (what == OTHER)
        return false;
    const long *given = frame->arguments;
    /* A process may be killed before it has noted what it did: then this says so. */
    atomic_fetch_add(&shared->under_way, 1);
    if (what == UNDERSTOOD && call.changes && call.number != SYS_mkdir) {
        look_before(state, &call, call.path);
        if (call.second)
            look_before(state, &call, call.second);
    }
    long result = passing(state, frame->number, given[0], given[1], given[2], given[3]);
    /* What failed so had no effect, and is made again, for the tracer to see what can be read of its arguments. */
    bool again = result == -EFAULT || result == -ENAMETOOLONG;
    if (!again && what == UNDERSTOOD)
        note(state, &call, result);
    atomic_fetch_sub(&shared->under_way, 1);
    if (!again)
        frame->number = result;
    return !again;
}
