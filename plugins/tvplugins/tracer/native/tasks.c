/* Knows the tasks that are traced, and reads their memory. */
#define _GNU_SOURCE
#include "tasks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "inject.h"

#define BUCKETS 1024

static struct task *tasks[BUCKETS];
unsigned tasks_living, tasks_held;

struct task *task_of(pid_t tid)
{
    struct task **at = &tasks[(unsigned)tid % BUCKETS];
    for (struct task *task = *at; task; task = task->next)
        if (task->tid == tid)
            return task;
    struct task *task = calloc(1, sizeof *task);
    if (!task)
        _exit(1); /* everything that is traced ends with us, and the record has no end */
    task->tid = tid;
    task->call = -1;
    task->next = *at;
    *at = task;
    tasks_living++;
    return task;
}

void tasks_forget(pid_t tid)
{
    for (struct task **at = &tasks[(unsigned)tid % BUCKETS]; *at; at = &(*at)->next)
        if ((*at)->tid == tid) {
            struct task *task = *at;
            *at = task->next;
            tasks_held -= task->held;
            strings_free(&task->strings);
            free(task);
            tasks_living--;
            return;
        }
}

void tasks_each(void (*what)(struct task *task))
{
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++)
        for (struct task *task = tasks[bucket]; task; task = task->next)
            what(task);
}

void task_turn_off(const struct task *task)
{
    if (record_is_open() && task->inside && !inject_turn_off(task->tid))
        record_trouble("a program could not be told to leave its calls to the tracer");
}

bool read_memory(pid_t tid, uint64_t address, void *to, size_t bytes)
{
    struct iovec here = {to, bytes}, there = {(void *)address, bytes};
    return process_vm_readv(tid, &here, 1, &there, 1, 0) == (ssize_t)bytes;
}

/* Reads a string page by page, since the next page may not be there; returns its length, or -1. */
int read_string(pid_t tid, uint64_t address, char *to)
{
    int length = 0;
    while (length < PATH_BYTES) {
        size_t bytes = 4096 - ((address + length) & 4095);
        if (!length && bytes > 256)
            bytes = 256; /* most paths are short */
        if (bytes > (size_t)(PATH_BYTES - length))
            bytes = PATH_BYTES - length;
        if (!read_memory(tid, address + length, to + length, bytes))
            return -1;
        char *end = memchr(to + length, 0, bytes);
        if (end)
            return end - to;
        length += bytes;
    }
    return -1;
}

/* The kernel's path for /proc/TID/NAME; returns its length, 0 if there is none. */
int read_link(pid_t tid, const char *name, long long number, char *to)
{
    char path[64];
    if (number >= 0)
        snprintf(path, sizeof path, "/proc/%d/%s/%lld", tid, name, number);
    else
        snprintf(path, sizeof path, "/proc/%d/%s", tid, name);
    ssize_t length = readlink(path, to, PATH_BYTES);
    return length < 0 ? 0 : (int)length;
}
