/* Speaking over a socket that does not block, with a deadline, and writing to streams that may not take all at once. */
#ifndef TALK_H
#define TALK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#define MOST_DESCRIPTORS 32
#define NEVER LLONG_MAX

struct descriptors {
    int at[MOST_DESCRIPTORS];
    size_t count;
};

long long now_ms(void);

/* Whether one of `events`, or the end, came before the deadline, which is a moment of now_ms. */
bool await(int peer, short events, long long deadline);

/* Sends all, with the descriptors if any are given; false if that could not be done before the deadline. */
bool send_all(int peer, const void *content, size_t length, const struct descriptors *given, long long deadline);

/* Fills `content`, and adds the descriptors that came with it to `taken`. */
bool receive_all(int peer, void *content, size_t length, struct descriptors *taken, long long deadline);

/* Returns 0, or why not all could be written. */
int write_all(int stream, const char *content, size_t length);

#endif
