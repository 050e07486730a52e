/* What the parts of the code inside of programs share; there are no libraries below it. */
#ifndef INSIDE_H
#define INSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "shared.h"

#pragma GCC visibility push(hidden) /* found from where the code is, not at an address that the linker thinks of */

#define PAGE 4096
#define NOTED 500 /* with what else is in the state less than a page */

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

extern const char image[];

void begin(int record, const struct told *told);

/* Makes the call by which the loader maps a library; the C library's code is what has the jumps. */
bool map(struct state *state, struct frame *frame);

#pragma GCC visibility pop

static inline struct state *state_here(void)
{
    return (struct state *)(image + STATE_FROM_CODE);
}

/* A system call that the filter does not look at. */
static inline long direct(long number, long a, long b, long c, long d, long e, long f)
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
static inline long passing(const struct state *state, long number, long a, long b, long c, long d)
{
    return direct(number, a, b, c, d, 0, state->key);
}

static inline bool failed(long result)
{
    return (unsigned long)result > -4096ul;
}

static inline void copy(void *to, const void *from, size_t bytes)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

static inline bool same(const char *one, const char *other, size_t bytes)
{
    while (bytes && *one == *other) {
        one++;
        other++;
        bytes--;
    }
    return !bytes;
}

#endif
