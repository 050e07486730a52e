/* The tasks that are traced, as the kernel calls processes and threads. */
#ifndef TASKS_H
#define TASKS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "record.h"

#define PATH_BYTES 4096

/* A task, from its first stop to its end. */
struct task {
    pid_t tid;
    int call;          /* number of the call that has begun and must be reported, -1 for none */
    bool inside;       /* the code of inside.c is in its memory */
    bool named;        /* whoever made it has said so */
    bool held;         /* it has stopped for the first time and is not let go on before it is named */
    bool filtered;     /* it may have a filter of its own, which outlives its program and knows nothing of our calls */
    bool shares;       /* another task may write to its memory, and change a path after it was read */
    uint64_t address1, address2; /* of its paths */
    uint64_t flags;
    unsigned addresses; /* socket addresses among its strings */
    struct strings strings;
    struct task *next;
};

extern unsigned tasks_living, tasks_held;

/* The task of that number; a new one if none is known. */
struct task *task_of(pid_t tid);
void tasks_forget(pid_t tid);
void tasks_each(void (*what)(struct task *task));

/* Has the code inside of a task, if there is any, leave its calls to the tracer from now on. */
void task_turn_off(const struct task *task);

/* --- its memory and its descriptors --- */

bool read_memory(pid_t tid, uint64_t address, void *to, size_t bytes);

/* Reads a string of at most PATH_BYTES; returns its length, or -1. */
int read_string(pid_t tid, uint64_t address, char *to);

/* The kernel's path for /proc/TID/NAME, or /proc/TID/NAME/NUMBER where that is not negative; its length, 0 if none. */
int read_link(pid_t tid, const char *name, long long number, char *to);

#endif
