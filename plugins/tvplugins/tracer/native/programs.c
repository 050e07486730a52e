/* Looks at new programs in their memory, where that is enough: each path below /proc that is opened takes 5 to 14 us. */
#define _GNU_SOURCE
#include "programs.h"

#include <elf.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

#include "tasks.h"

#define MOST_HEAD 2048 /* bytes of a program, where one look is enough */
#define MOST_STACK 16384 /* of the arguments, the environment and what the kernel adds, where one look is enough */

static struct auxiliary auxiliary_in(const uint64_t *words, size_t count)
{
    struct auxiliary told = {.arguments_bytes = -1};
    for (size_t at = 0; at + 1 < count && words[at] != AT_NULL; at += 2)
        switch (words[at]) {
        case AT_BASE: told.base = words[at + 1]; break;
        case AT_SYSINFO_EHDR: told.kernel = words[at + 1]; break;
        case AT_EXECFN: told.name = words[at + 1]; break;
        case AT_PHDR: told.table = words[at + 1]; break;
        }
    return told;
}

/* What it was given, if that is short: the kernel puts the arguments, one after the other, before the environment. */
static void take_arguments(struct auxiliary *told, const uint64_t *words, size_t bytes, uint64_t top)
{
    if (!words[0] || words[0] >= bytes / sizeof *words - 2)
        return;
    uint64_t first = words[1], end = words[words[0] + 2] ? words[words[0] + 2] : told->name;
    if (first >= top && end > first && end - top <= bytes && end - first <= sizeof told->arguments) {
        told->arguments_bytes = (int)(end - first);
        memcpy(told->arguments, (const char *)words + (first - top), end - first);
    }
}

/* Reads it from the new stack, where the path stands at the end; returns false if that is larger than usual. */
static bool read_stack(pid_t tid, struct auxiliary *told, char *path, int *length)
{
    static uint64_t words[MOST_STACK / sizeof(uint64_t)];
    uint64_t top = (uint64_t)ptrace(PTRACE_PEEKUSER, tid, offsetof(struct user_regs_struct, rsp), 0);
    struct iovec here = {words, sizeof words}, there = {(void *)top, sizeof words};
    ssize_t bytes = process_vm_readv(tid, &here, 1, &there, 1, 0);
    size_t at = 1, count = bytes < 0 ? 0 : (size_t)bytes / sizeof *words;
    for (int lists = 0; lists < 2; at++) /* arguments and environment: each ends with a zero */
        if (at >= count)
            return false;
        else
            lists += !words[at];
    *told = auxiliary_in(words + at, count - at);
    size_t name = told->name - top;
    const char *text = (const char *)words + name, *end = NULL;
    if (told->name >= top && name < (size_t)bytes)
        end = memchr(text, 0, (size_t)bytes - name);
    if (!end || end - text >= PATH_BYTES)
        return false;
    *length = (int)(end - text);
    memcpy(path, text, (size_t)*length);
    take_arguments(told, words, (size_t)bytes, top);
    return true;
}

int read_auxiliary(pid_t tid, struct auxiliary *told, char *path)
{
    uint64_t words[128];
    char name[32];
    int length;
    if (read_stack(tid, told, path, &length))
        return length;
    snprintf(name, sizeof name, "/proc/%d/auxv", tid);
    int file = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = file < 0 ? 0 : read(file, words, sizeof words);
    if (file >= 0)
        close(file);
    *told = auxiliary_in(words, bytes < 0 ? 0 : (size_t)bytes / sizeof *words);
    return read_string(tid, told->name, path);
}

/* How much of the beginning of a program tells its loader; 0 if that is not known. */
static size_t head_bytes(const char *head, size_t bytes)
{
    const Elf64_Ehdr *elf = (const Elf64_Ehdr *)head;
    size_t needed = sizeof *elf;
    if (bytes < needed || memcmp(elf->e_ident, ELFMAG, SELFMAG) || elf->e_ident[EI_CLASS] != ELFCLASS64 ||
        elf->e_phentsize != sizeof(Elf64_Phdr) || elf->e_phoff > bytes ||
        elf->e_phnum > (bytes - elf->e_phoff) / sizeof(Elf64_Phdr))
        return 0;
    needed = elf->e_phoff + elf->e_phnum * sizeof(Elf64_Phdr);
    for (unsigned part = 0; part < elf->e_phnum; part++) {
        Elf64_Phdr one;
        memcpy(&one, head + elf->e_phoff + part * sizeof one, sizeof one);
        if (one.p_type == PT_INTERP && (one.p_offset > bytes || one.p_filesz > bytes - one.p_offset))
            return 0;
        if (one.p_type == PT_INTERP && one.p_offset + one.p_filesz > needed)
            needed = one.p_offset + one.p_filesz;
    }
    return needed;
}

int read_head(pid_t tid, const struct auxiliary *told, char *head)
{
    char name[32];
    uint64_t first = told->table & ~4095ull;
    if (told->table > first && read_memory(tid, first, head, MOST_HEAD) &&
        first + ((const Elf64_Ehdr *)head)->e_phoff == told->table && head_bytes(head, MOST_HEAD))
        return (int)head_bytes(head, MOST_HEAD);
    snprintf(name, sizeof name, "/proc/%d/exe", tid);
    int file = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = file < 0 ? 0 : read(file, head, PATH_BYTES);
    if (file >= 0)
        close(file);
    return bytes < 0 ? 0 : (int)bytes;
}
