/* The tracer's own entries in the record. */
#ifndef RECORD_H
#define RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared.h"

/* Kinds; smaller ones are numbers of system calls. */
enum { CLONED = 1001, EXECUTED, ENDED, TROUBLE, END, UNKNOWN };

/* Strings as they are in an entry. */
struct strings {
    char *at;
    size_t bytes, room;
    unsigned count;
};

void strings_clear(struct strings *strings);
void strings_add(struct strings *strings, const char *text, int length); /* -1 for one that could not be read */
const char *strings_get(const struct strings *strings, unsigned number, int *length);
void strings_free(struct strings *strings);

struct shared *record_open(int record, int done); /* NULL if the file cannot be mapped */
void record_call(pid_t tid, int kind, long long result, uint64_t flags, const char *outcome, int length,
                 const struct strings *strings);
void record_trouble(const char *reason);
bool record_is_open(void);
void record_close(void);

void record_names_changed(void);     /* what was noted before must be noted again */
void record_call_has_ended(void);    /* one that the code inside began and cannot say of itself that it has ended */
bool record_calls_under_way(void);

#endif
