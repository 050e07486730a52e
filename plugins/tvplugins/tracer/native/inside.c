/* Code that is mapped into traced programs: makes the calls that are most frequent itself, and notes them.
 *
 * Where the C library and its loader make such a call - `mov $NUMBER,%eax; syscall` - the `mov` is replaced by a jump to
 * here (the `syscall` stays, and is where everything goes that is not understood).  The tracer's filter lets the call
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
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "shared.h"

#define NOTED 500 /* with what else is in the state less than a page */
#define PAGE 4096
#define COMMON_BYTES 13
#define STUB_BYTES 17
#define BEGINNING 16 /* bytes of a path that are looked at before the call */
#define BASE_BYTES 256
#define ROOM_LEFT (1 << 20)

typedef int (*clock_function)(clockid_t clock, struct timespec *now);

struct state {
    _Atomic uint32_t off; /* set by the tracer: calls are made where they were */
    long key;
    clock_function clock;
    struct shared *shared;
    _Atomic uint64_t noted[NOTED];
};

/* The registers of a call, as `entry` pushes them. */
struct frame {
    long arguments[6];
    long number; /* becomes the result */
    uint64_t at; /* where the `syscall` is that was meant */
};

bool handle(struct frame *frame);
void begin(int record, const struct told *told);
__attribute__((visibility("hidden"))) int peek(const char *path, char *to);
/* Hidden: found from where the code is, not at an address that the linker thinks of. */
__attribute__((visibility("hidden"))) void entry(void);
__attribute__((visibility("hidden"))) extern const char image[];

/* The jump to `begin` and three offsets are what the tracer knows of the image (inject.c). */
__asm__(".pushsection .head, \"ax\"\n"
        "image: jmp begin\n"
        ".balign 8\n"
        ".quad peek - image, peek_end - image, peek_unreadable - image\n"
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

static struct state *state_here(void)
{
    return (struct state *)(image + STATE_FROM_CODE);
}

/* A system call that the filter does not look at. */
static long direct(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* One that the filter lets pass. */
static long passing(const struct state *state, long number, long a, long b, long c, long d)
{
    return direct(number, a, b, c, d, 0, state->key);
}

static bool failed(long result)
{
    return (unsigned long)result > -4096ul;
}

static void copy(void *to, const void *from, size_t bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static bool same(const char *one, const char *other, size_t bytes)
{
    while (bytes && *one == *other) {
        one++;
        other++;
        bytes--;
    }
    return !bytes;
}

/* --- putting in jumps --------------------------------------------------------------------------------------------- */

static uint8_t *put_byte(uint8_t *at, uint8_t byte)
{
    *at = byte;
    return at + 1;
}

static uint8_t *put_offset(uint8_t *at, const uint8_t *target)
{
    int32_t offset = (int32_t)(target - (at + 4));
    copy(at, &offset, 4);
    return at + 4;
}

/* The instruction that the jump takes the place of; lea SYSCALL(%rip),%rcx; jmp COMMON */
static uint8_t *put_stub(uint8_t *at, const uint8_t *site, const uint8_t *common)
{
    copy(at, site, MOVE_BYTES);
    at = put_byte(at + MOVE_BYTES, 0x48);
    at = put_byte(at, 0x8d);
    at = put_byte(at, 0x0d);
    at = put_offset(at, site + MOVE_BYTES);
    return put_offset(put_byte(at, 0xe9), common);
}

/* What is at a site; NULL if that is not what it should be, or lies elsewhere. */
static uint8_t *site_in(const struct site *site, uint8_t *at, size_t bytes, uint64_t from)
{
    uint8_t *there = at + (site->at - from);
    if (site->at < from || site->at + SITE_BYTES > from + bytes)
        return NULL;
    return same((const char *)there, (const char *)site->bytes, SITE_BYTES) ? there : NULL;
}

/* Puts jumps into the code of a file that has just been mapped, which nothing runs yet but the loader, and that waits
 * for us; `at` is where the byte `from` of the file is.  What they jump to is put behind the code, where it does not fill
 * its last page.  It stays executable all the time, so that nothing is lost where a system forbids to change it. */
static void patch(const struct patched_file *file, uint8_t *at, size_t bytes, uint64_t from, uint64_t used)
{
    uint64_t room = file->room + used - from;
    if (used + COMMON_BYTES + file->count * STUB_BYTES > file->room_bytes || room > bytes ||
        direct(SYS_mprotect, (long)at, (long)bytes, PROT_READ | PROT_WRITE | PROT_EXEC, 0, 0, 0))
        return;
    uint8_t *common = at + room;
    uint64_t to = (uint64_t)&entry;
    uint8_t *next = put_byte(put_byte(common, 0x49), 0xbb); /* movabs $entry,%r11; jmp *%r11 */
    copy(next, &to, 8);
    next = put_byte(put_byte(put_byte(next + 8, 0x41), 0xff), 0xe3);
    for (const struct site *site = file->sites; site < file->sites + file->count; site++) {
        uint8_t *there = site_in(site, at, bytes, from), *stub = next;
        if (there) {
            next = put_stub(stub, there, common);
            put_offset(put_byte(there, 0xe9), stub);
        }
    }
    direct(SYS_mprotect, (long)at, (long)bytes, PROT_READ | PROT_EXEC, 0, 0, 0);
}

/* The loader maps a library: the C library gets jumps. */
static bool map(struct state *state, struct frame *frame)
{
    const long *given = frame->arguments;
    struct stat status;
    long result = direct(SYS_mmap, given[0], given[1], given[2], given[3], given[4], given[5]);
    frame->number = result;
    if (failed(result) || !(given[2] & PROT_EXEC) || (int)given[4] < 0 ||
        direct(SYS_fstat, given[4], (long)&status, 0, 0, 0, 0))
        return true;
    for (const struct patched_file *file = state->shared->files; file < state->shared->files + PATCHED_FILES; file++)
        if (file->inode && file->inode == status.st_ino && file->device == status.st_dev &&
            file->bytes == (uint64_t)status.st_size &&
            file->changed_ns == (uint64_t)status.st_mtim.tv_sec * 1000000000 + (uint64_t)status.st_mtim.tv_nsec)
            patch(file, (uint8_t *)result, (size_t)given[1], (uint64_t)given[5], 0);
    return true;
}

/* Called before the program's first instruction. */
void begin(int record, const struct told *told)
{
    struct state *state = state_here();
    struct rlimit limit;
    if (direct(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)&limit, 0, 0) || limit.rlim_cur != RLIM_INFINITY)
        return; /* what the record takes would be missing */
    if (direct(SYS_mmap, (long)state, sizeof *state, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (long)state)
        return;
    state->shared = (struct shared *)(told->code + RECORD_FROM_CODE);
    if (direct(SYS_mmap, (long)state->shared, (long)told->room, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, record, 0) != (long)state->shared)
        return;
    direct(SYS_madvise, (long)state->shared, (long)told->room, MADV_DONTDUMP, 0, 0, 0); /* it has holes, which a dump fills */
    state->key = (long)told->key;
    state->clock = (clock_function)told->clock;
    const struct patched_file *loader = &state->shared->files[0];
    patch(loader, (uint8_t *)(told->loader + loader->text), loader->text_bytes, loader->text, FIRST_BYTES);
}

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
