/* The record: what happened, in order.  A file that the tracer and the library inside of traced programs map, and
 * that tvplugins/tracer/native_record.py reads.
 *
 * Each entry has a head and strings: each a u16 length and its bytes; the length 0xffff is for one that could not be
 * read.  The first string is the outcome; places follow, two strings each: the path and its base.  After them comes,
 * for calls that change what is there, one `struct before` for each place, or an empty string if that is not known.
 *
 * The library appends the calls that it makes itself, the tracer all others; both reserve room with one atomic
 * addition, so the order of entries is that in which calls returned.  An entry's first word, its length, is written
 * last: an entry without one was reserved by a process that was killed, and ends what can be believed.
 */
#ifndef SHARED_H
#define SHARED_H

#include <stdatomic.h>
#include <stdint.h>

#define MOST_BYTES (1ull << 30)    /* sparse; what does not fit any more is not made by the library, but traced */
#define FEWEST_BYTES (1ull << 21)
#define FIRST_ENTRY 65536
#define SLOTS 8192
#define ENVIRONMENT "TASKVAULT_TRACE"

struct shared {
    _Atomic uint64_t end;           /* of the last entry; more than `room` if it is full */
    uint64_t final;                 /* `end` when the record was closed; 0 if it was not */
    _Atomic uint32_t generation;    /* grows when names change: what was noted before must be noted again */
    uint32_t reserved;
    uint64_t room;                  /* bytes of the file: fewer where the caller has limits */
    int64_t since_1970_ns;          /* to be added to CLOCK_MONOTONIC: times never go back, whatever sets the clock */
    _Atomic uint32_t made[SLOTS];   /* calls that the library made, by task number modulo SLOTS */
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
