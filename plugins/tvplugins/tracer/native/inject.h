/* Gives programs that have just been executed the code of inside.c. */
#ifndef INJECT_H
#define INJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared.h"

/* Puts the code of the file `image` into the record, which programs get at as `descriptor`.  With `key` as their sixth
 * argument the calls of INSIDE pass the filter. */
void inject_begin(const char *image, uint64_t key, int descriptor, struct shared *shared);

/* The task has just become a program and has not run a single instruction of it.  Has it run the code first, if it is
 * for a loader that is known.  `base` is where the kernel put the loader, `kernel` where its own page is.  Whether it will. */
bool inject(pid_t tid, uint64_t base, uint64_t kernel);

/* From now on the task's memory is not its alone, or its calls are filtered: it makes them where they were.
 * False if it could not be told. */
bool inject_turn_off(pid_t tid);

/* Whether a fault is the code's, which tried whether memory can be read; it goes on then, and knows. */
bool inject_takes_fault(pid_t tid);

#endif
