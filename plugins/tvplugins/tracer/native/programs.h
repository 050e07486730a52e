/* What there is to know of a program that has been executed, before it begins. */
#ifndef PROGRAMS_H
#define PROGRAMS_H

#include <stdint.h>
#include <sys/types.h>

/* What the kernel tells a new program of itself. */
struct auxiliary {
    uint64_t base, kernel; /* of its loader, of the page that the kernel gives it */
    uint64_t name;         /* of the path it was executed by */
    uint64_t table;        /* of its program headers */
    int arguments_bytes;   /* of what it was given, each with a zero byte; -1 if that is long */
    char arguments[4096]; /* rustc is given 1 to 3 KiB */
};

/* Reads that, and the path, of at most PATH_BYTES; returns the path's length, or -1. */
int read_auxiliary(pid_t tid, struct auxiliary *told, char *path);

/* Reads as much of the beginning of the program's file, at most PATH_BYTES, as tells what its loader is: from its memory,
 * if that begins with it, for nothing has run yet.  Returns how much that is. */
int read_head(pid_t tid, const struct auxiliary *told, char *head);

#endif
