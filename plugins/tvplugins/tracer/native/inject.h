/* Gives programs that have just been executed the library of inside.c. */
#ifndef INJECT_H
#define INJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What is known of a program: whether the library was worth loading. */
struct program;

void inject_begin(const char *library, unsigned long gate, int descriptor);

/* The task has just become the program at `path` and has not run a single instruction of it.  Returns what is known of
 * the program; NULL if it does not get the library. */
struct program *inject(pid_t tid, const char *path);

/* A task of the program ended, or became another, after so many calls by the library. */
void inject_learn(struct program *program, uint32_t made);

bool inject_is_library(const char *path, int length);

#endif
