/* Gives programs the library, by two variables in the environment of execve that the library takes out again.
 *
 * Only to programs for the C library's own loader: others would not load it, or show the variables.  Not to those
 * that have an LD_PRELOAD already, nor to those that were seen to make too few calls for what loading costs.
 */
#define _GNU_SOURCE
#include "inject.h"

#include <elf.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

#include "shared.h"

#define LOADER "/lib64/ld-linux-x86-64.so.2"
#define MOST_VARIABLES 1000
#define RED_ZONE 256
#define PROGRAMS 1024
#define WORTH_CALLS 8 /* loading costs about as much as tracing so many calls */

struct program {
    uint64_t hash;
    uint32_t executed, made;
};

static struct program programs[PROGRAMS];
static const char *library;
static char variables[2][512];

void inject_begin(const char *path, unsigned long gate, int descriptor)
{
    library = path;
    snprintf(variables[0], sizeof variables[0], "LD_PRELOAD=%s", path);
    snprintf(variables[1], sizeof variables[1], ENVIRONMENT "=%lx %d %d", gate, getpid(), descriptor);
}

bool inject_is_library(const char *path, int length)
{
    return library && length == (int)strlen(library) && !memcmp(path, library, (size_t)length);
}

static struct program *program_of(const char *path)
{
    uint64_t hash = 14695981039346656037u;
    for (; *path; path++)
        hash = (hash ^ (unsigned char)*path) * 1099511628211u;
    struct program *program = &programs[hash % PROGRAMS];
    if (program->hash != hash)
        *program = (struct program){.hash = hash};
    return program;
}

void inject_learn(struct program *program, uint32_t made)
{
    if (program)
        program->made += made;
}

/* Whether the file is a dynamic program of this machine, or a script for one. */
static bool takes_library(int file, pid_t tid, bool script_too)
{
    char raw[4096];
    ssize_t bytes = file < 0 ? -1 : read(file, raw, sizeof raw - 1);
    if (file >= 0)
        close(file);
    if (bytes < (ssize_t)sizeof(Elf64_Ehdr))
        return false;
    raw[bytes] = 0;
    if (script_too && raw[0] == '#' && raw[1] == '!') {
        char *name = raw + 2 + strspn(raw + 2, " \t"), path[4200];
        name[strcspn(name, " \t\n")] = 0;
        snprintf(path, sizeof path, "/proc/%d/root%s", tid, name);
        return takes_library(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), tid, false);
    }
    Elf64_Ehdr head;
    memcpy(&head, raw, sizeof head);
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_machine != EM_X86_64)
        return false;
    for (unsigned number = 0; number < head.e_phnum; number++) {
        Elf64_Phdr row;
        size_t at = head.e_phoff + number * sizeof row;
        if (at + sizeof row > (size_t)bytes)
            return false;
        memcpy(&row, raw + at, sizeof row);
        if (row.p_type == PT_INTERP)
            return row.p_offset + sizeof LOADER <= (size_t)bytes && row.p_filesz == sizeof LOADER &&
                   !memcmp(raw + row.p_offset, LOADER, sizeof LOADER);
    }
    return false;
}

static ssize_t copy(pid_t tid, void *here_at, uint64_t there_at, size_t bytes, bool out)
{
    struct iovec here = {here_at, bytes}, there = {(void *)there_at, bytes};
    return out ? process_vm_writev(tid, &here, 1, &there, 1, 0) : process_vm_readv(tid, &here, 1, &there, 1, 0);
}

/* Reads the pointers of an environment; returns how many, or -1 if they cannot be read or LD_PRELOAD is among them. */
static int read_environment(pid_t tid, uint64_t address, uint64_t *pointers)
{
    static char beginnings[MOST_VARIABLES][11];
    static struct iovec here[MOST_VARIABLES], there[MOST_VARIABLES];
    int count = 0, there_are = 0;
    for (;; count++) {
        if (count == there_are) {
            /* As many as the page has. */
            int more = (int)((4096 - (address & 4095)) / 8);
            if (more > MOST_VARIABLES - count)
                more = MOST_VARIABLES - count;
            if (more <= 0 || copy(tid, pointers + count, address, (size_t)more * 8, false) != more * 8)
                return -1;
            there_are += more;
            address += (uint64_t)more * 8;
        }
        if (!pointers[count])
            break;
        there[count] = (struct iovec){(void *)pointers[count], sizeof beginnings[0]};
        here[count] = (struct iovec){beginnings[count], sizeof beginnings[0]};
    }
    if (count && process_vm_readv(tid, here, (unsigned long)count, there, (unsigned long)count, 0) !=
                     (ssize_t)(count * sizeof beginnings[0]))
        return -1;
    for (int number = 0; number < count; number++)
        if (!memcmp(beginnings[number], "LD_PRELOAD=", 11))
            return -1;
    return count;
}

bool inject(pid_t tid, const char *path, bool execveat, uint64_t environment, uint64_t stack, struct program **program)
{
    static struct {
        uint64_t pointers[MOST_VARIABLES + 3];
        char text[sizeof variables];
    } block;
    char file[4200];
    if (!library || !*path)
        return false;
    *program = program_of(path);
    struct program *known = *program;
    if (known->executed >= 2 && known->made / known->executed < WORTH_CALLS)
        return false;
    snprintf(file, sizeof file, "/proc/%d/%s/%s", tid, *path == '/' ? "root" : "cwd", path);
    if (!takes_library(open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK), tid, true))
        return false;
    int count = read_environment(tid, environment, block.pointers);
    if (count < 0)
        return false;
    size_t first = strlen(variables[0]) + 1, second = strlen(variables[1]) + 1;
    size_t table = (size_t)(count + 3) * sizeof(uint64_t);
    uint64_t at = (stack - RED_ZONE - table - first - second) & ~(uint64_t)15;
    block.pointers[count] = at + table;
    block.pointers[count + 1] = at + table + first;
    block.pointers[count + 2] = 0;
    char *text = (char *)block.pointers + table;
    memcpy(text, variables[0], first);
    memcpy(text + first, variables[1], second);
    if (copy(tid, &block, at, table + first + second, true) != (ssize_t)(table + first + second))
        return false;
    size_t place = execveat ? offsetof(struct user_regs_struct, r10) : offsetof(struct user_regs_struct, rdx);
    if (ptrace(PTRACE_POKEUSER, tid, place, at))
        return false;
    known->executed++;
    return true;
}

void inject_undo(pid_t tid, bool execveat, uint64_t environment)
{
    size_t place = execveat ? offsetof(struct user_regs_struct, r10) : offsetof(struct user_regs_struct, rdx);
    ptrace(PTRACE_POKEUSER, tid, place, environment);
}
