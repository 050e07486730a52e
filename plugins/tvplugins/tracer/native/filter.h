/* The calls that are traced, and the filter that stops a task at them. */
#ifndef FILTER_H
#define FILTER_H

#include <stdbool.h>
#include <stdint.h>

#define LAST_KNOWN_CALL 462 /* mseal, Linux 6.10: those that are newer are traced as unknown */
#define MOST_CALLS 512
#define FOREIGN_CALL 0xfffe /* what the filter says of a call for another instruction set */
#define KNOWN_CALL 1
#define UNKNOWN_CALL 2
#define FILTERING_CALL 3 /* prctl(PR_SET_SECCOMP) */

struct call {
    const char *name;
    signed char base1, path1, base2, path2, flags, address;
    bool forbidden;
};

/* By their numbers; those that are not traced have no name. */
extern const struct call calls[MOST_CALLS];

/* Has this process and all that comes of it stop at the calls of calls.h, at those that are newer than this program, and
 * at those of another instruction set.  With `key` as their sixth argument the calls of INSIDE pass; 0: none do. */
bool filter_install(uint64_t key);

#endif
