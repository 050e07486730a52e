/* Gives programs that are about to be executed the library of inside.c. */
#ifndef INJECT_H
#define INJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* What is known of a program: whether the library was worth loading. */
struct program;

void inject_begin(const char *library, unsigned long gate, int descriptor);

/* The task is stopped before execve or execveat, whose environment is at `environment`, its register `place`.  Returns
 * whether another environment was put in its place; then inject_undo must be called if the call fails. */
bool inject(pid_t tid, const char *path, bool execveat, uint64_t environment, uint64_t stack, struct program **program);
void inject_undo(pid_t tid, bool execveat, uint64_t environment);

/* A task of the program ended, or became another, after so many calls by the library. */
void inject_learn(struct program *program, uint32_t made);

bool inject_is_library(const char *path, int length);

#endif
