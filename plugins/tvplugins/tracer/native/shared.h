/* The record: what happened, in order.  A file that the tracer and the code inside of traced programs map, and that
 * tvplugins/tracer/native_record.py reads.
 *
 * Each entry has a head and strings: each a u16 length and its bytes; the length 0xffff is for one that could not be
 * read.  The first string is the outcome; places follow, two strings each: the path and its base.  After them comes,
 * for calls that change what is there, one `struct before` for each place, or an empty string if that is not known.
 *
 * The code inside appends the calls that it makes itself, the tracer all others; both reserve room with one atomic
 * addition, so the order of entries is that in which calls returned.  An entry's first word, its length, is written
 * last: an entry without one was reserved by a process that was killed, and ends what can be believed.
 *
 * Between the head of the file and the first entry is that code itself, for programs to map; at its end, behind the
 * room for entries, what they map in place of the code of the loader and of the C library (texts.c).
 */
#ifndef SHARED_H
#define SHARED_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

#define MOST_BYTES (1ull << 30)    /* sparse; what does not fit any more is not made inside, but traced */
#define FEWEST_BYTES (1ull << 21)
#define FIRST_ENTRY 65536

/* Where the code is in the record; where its state and all of the record are in a program's memory, from it. */
#define CODE_AT 32768
#define CODE_BYTES 16384
#define STATE_FROM_CODE CODE_BYTES
#define RECORD_FROM_CODE (1 << 20)
#define LIBRARY_FROM_CODE (-(16l << 20)) /* the C library's code, before it is needed */


/* The calls that are made inside of programs, by their names in calls.h. */
#define INSIDE(CALL) \
    CALL(open) CALL(openat) CALL(stat) CALL(lstat) CALL(newfstatat) CALL(access) CALL(faccessat) CALL(faccessat2) \
    CALL(readlink) CALL(readlinkat) CALL(execve) CALL(statfs) CALL(getdents64) \
    CALL(unlink) CALL(unlinkat) CALL(mkdir) CALL(rename)

/* A file whose code is given to programs with jumps in it. */
struct patched_file {
    uint64_t device, inode, bytes, changed_ns; /* which it is; zero inode: none */
    uint64_t text, text_bytes; /* of the segment with its code: where it is in the file, whole pages */
    uint64_t prepared;         /* where its code with the jumps is in the record */
};

struct shared {
    _Atomic uint64_t end;           /* of the last entry; more than `room` if it is full */
    uint64_t final;                 /* `end` when the record was closed; 0 if it was not */
    _Atomic uint32_t generation;    /* grows when names change: what was noted before must be noted again */
    _Atomic uint32_t under_way;     /* calls that began inside, and are not noted yet */
    uint64_t room;                  /* where the entries must end: earlier where the caller has limits */
    int64_t since_1970_ns;          /* to be added to CLOCK_MONOTONIC: times never go back, whatever sets the clock */
    struct patched_file loader, library;
};

/* What the code is told when it begins. */
struct told {
    uint64_t key;     /* with this as a sixth argument a call passes the filter */
    uint64_t code;    /* where this is to be mapped */
    uint64_t loader;  /* where its file begins in memory */
    uint64_t clock;   /* clock_gettime of the kernel's page */
    uint64_t room;
};

struct head {
    _Atomic uint32_t length;        /* of all of it; a multiple of 8 */
    uint16_t kind, strings;         /* a system call's number, or one of record.h; how many strings */
    int32_t tid;
    uint32_t reserved;
    uint64_t at_ns;                 /* since 1970 */
    int64_t result;
    uint64_t flags;
};

/* What was at a place when a call began that changes it; all zero: nothing was. */
struct before {
    uint32_t mode, links, owner, group;
    uint64_t size;
    int64_t mtime_ns;
};

#endif
