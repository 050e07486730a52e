/* Appends the tracer's entries to the record. */
#define _GNU_SOURCE
#include "record.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define UNREADABLE 0xffff

static struct shared *shared;
static int done = -1;
static size_t mapped_bytes;

void strings_clear(struct strings *strings)
{
    strings->bytes = 0;
    strings->count = 0;
}

void strings_add(struct strings *strings, const char *text, int length)
{
    uint16_t size = length < 0 ? UNREADABLE : (uint16_t)length;
    size_t bytes = length < 0 ? 0 : (size_t)length;
    if (strings->bytes + sizeof size + bytes > strings->room) {
        strings->room = 2 * (strings->room + sizeof size + bytes);
        strings->at = realloc(strings->at, strings->room);
        if (!strings->at)
            _exit(1); /* what is traced ends with us, and the record has no end */
    }
    memcpy(strings->at + strings->bytes, &size, sizeof size);
    if (bytes)
        memcpy(strings->at + strings->bytes + sizeof size, text, bytes);
    strings->bytes += sizeof size + bytes;
    strings->count++;
}

const char *strings_get(const struct strings *strings, unsigned number, int *length)
{
    uint16_t size;
    size_t at = 0;
    for (unsigned passed = 0; passed < strings->count; passed++) {
        memcpy(&size, strings->at + at, sizeof size);
        at += sizeof size;
        if (passed == number) {
            *length = size == UNREADABLE ? -1 : size;
            return strings->at + at;
        }
        at += size == UNREADABLE ? 0 : size;
    }
    *length = -1;
    return "";
}

void strings_free(struct strings *strings)
{
    free(strings->at);
}

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct shared *record_open(int record, int done_fd)
{
    struct rlimit limit;
    uint64_t room = MOST_BYTES;
    void *mapped = MAP_FAILED;
    done = done_fd;
    if (!getrlimit(RLIMIT_FSIZE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    for (; mapped == MAP_FAILED && room >= FEWEST_BYTES; room /= 2)
        if (!ftruncate(record, (off_t)room))
            mapped = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, record, 0);
    if (mapped == MAP_FAILED)
        return NULL;
    shared = mapped;
    shared->room = mapped_bytes = room * 2; /* the loop has halved it once more */
    atomic_store(&shared->end, FIRST_ENTRY);
    shared->since_1970_ns = now_ns(CLOCK_REALTIME) - now_ns(CLOCK_MONOTONIC);
    return shared;
}

static char *put(char *at, const char *text, int length)
{
    uint16_t size = length < 0 ? UNREADABLE : (uint16_t)length;
    memcpy(at, &size, sizeof size);
    if (length > 0)
        memcpy(at + sizeof size, text, (size_t)length);
    return at + sizeof size + (length < 0 ? 0 : length);
}

void record_call(pid_t tid, int kind, long long result, uint64_t flags, const char *outcome, int length,
                 const struct strings *strings)
{
    if (!shared)
        return;
    size_t bytes = sizeof(struct head) + sizeof(uint16_t) + (length < 0 ? 0 : (size_t)length) + strings->bytes;
    bytes = (bytes + 7) & ~(size_t)7;
    uint64_t at = atomic_fetch_add(&shared->end, bytes);
    if (at + bytes > shared->room)
        return; /* full: the reader sees that by `end` */
    struct head *head = (struct head *)((char *)shared + at);
    head->kind = (uint16_t)kind;
    head->strings = (uint16_t)(1 + strings->count);
    head->tid = tid;
    head->at_ns = (uint64_t)(now_ns(CLOCK_MONOTONIC) + shared->since_1970_ns);
    head->result = result;
    head->flags = flags;
    char *next = put((char *)(head + 1), outcome, length);
    if (strings->bytes)
        memcpy(next, strings->at, strings->bytes);
    atomic_store_explicit(&head->length, (uint32_t)bytes, memory_order_release);
}

void record_trouble(const char *reason)
{
    record_call(0, TROUBLE, 0, 0, reason, (int)strlen(reason), &(struct strings){0});
}

bool record_is_open(void)
{
    return shared != NULL;
}

void record_names_changed(void)
{
    atomic_fetch_add(&shared->generation, 1);
}

void record_call_has_ended(void)
{
    atomic_fetch_sub(&shared->under_way, 1);
}

bool record_calls_under_way(void)
{
    return atomic_load(&shared->under_way);
}

/* The code inside of programs finds the record full from now on, and makes no calls itself any more. */
void record_close(void)
{
    shared->final = atomic_exchange(&shared->end, shared->room);
    munmap(shared, mapped_bytes);
    shared = NULL;
    close(done);
}
