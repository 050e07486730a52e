/* Gives programs the library, by two variables in their environment that the library takes out again.
 *
 * They are put in when the program has been executed and has not begun: the kernel has laid out its stack - the number
 * of arguments, their addresses, those of the environment, the auxiliary vector - and this table is copied further
 * down with two addresses more.  That memory is the new program's own.  The memory of the caller of execve is never
 * written to: after vfork it is its parent's too, and there may be no room below its stack (Go's are 8 KiB).
 *
 * Only to programs for the C library's own loader: others would not load it, or show the variables.  Not to those whose
 * environment tells the loader something (LD_PRELOAD, ldd's LD_TRACE_LOADED_OBJECTS), nor to those with the library of
 * a sanitizer, which must be the first, nor to those that were seen to make too few calls for what loading costs.
 */
#define _GNU_SOURCE
#include "inject.h"

#include <elf.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

#include "shared.h"

#define LOADER "/lib64/ld-linux-x86-64.so.2"
#define PAGE 4096
#define STACK_PAGES 32 /* programs with more arguments and environment than these hold get no library */
#define MOST_HEADERS 32
#define MOST_ENTRIES 256
#define MOST_NEEDED 64
#define NAME_BYTES 16
#define PROGRAMS 1024
#define WORTH_CALLS 8 /* loading costs about as much as tracing so many calls */

struct program {
    uint64_t hash;
    uint32_t executed, made;
};

/* The beginning of a stack, as words: where its parts are, and what the auxiliary vector says. */
struct stack {
    uint64_t at;
    size_t bytes;
    size_t environment, auxiliary, end; /* words from the beginning */
    uint64_t headers, headers_count, base, secure;
    union {
        uint64_t words[STACK_PAGES * PAGE / sizeof(uint64_t)];
        char text[STACK_PAGES * PAGE];
    };
};

static struct program programs[PROGRAMS];
static const char *library;
static char variables[2][512];

void inject_begin(const char *path, unsigned long gate, int descriptor)
{
    if (snprintf(variables[0], sizeof variables[0], "LD_PRELOAD=%s", path) >= (int)sizeof variables[0])
        return;
    snprintf(variables[1], sizeof variables[1], ENVIRONMENT "=%lx %d %d", gate, getpid(), descriptor);
    library = path;
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

static bool read_exactly(pid_t tid, uint64_t address, void *to, size_t bytes)
{
    struct iovec here = {to, bytes}, there = {(void *)address, bytes};
    return process_vm_readv(tid, &here, 1, &there, 1, 0) == (ssize_t)bytes;
}

/* Whether it is of the user that we are: others may not be let to the library, and the loader would say so. */
static bool same_user(pid_t tid)
{
    char path[32];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d", tid);
    return !stat(path, &status) && status.st_uid == geteuid();
}

/* Reads what there is from the stack pointer up, and finds the parts. */
static bool read_stack(pid_t tid, struct stack *stack)
{
    struct iovec here = {stack->text, 0}, there[STACK_PAGES];
    uint64_t address = stack->at;
    for (int page = 0; page < STACK_PAGES; page++) {
        size_t bytes = PAGE - address % PAGE;
        there[page] = (struct iovec){(void *)address, bytes};
        here.iov_len += bytes;
        address += bytes;
    }
    ssize_t bytes = process_vm_readv(tid, &here, 1, there, STACK_PAGES, 0);
    size_t words = bytes < 0 ? 0 : (size_t)bytes / sizeof(uint64_t);
    stack->bytes = bytes < 0 ? 0 : (size_t)bytes;
    if (!words || stack->words[0] >= words)
        return false;
    stack->environment = 1 + stack->words[0] + 1;
    stack->auxiliary = stack->environment;
    while (stack->auxiliary < words && stack->words[stack->auxiliary])
        stack->auxiliary++;
    for (size_t at = ++stack->auxiliary; at + 1 < words; at += 2) {
        uint64_t value = stack->words[at + 1];
        switch (stack->words[at]) {
        case AT_PHDR: stack->headers = value; break;
        case AT_PHNUM: stack->headers_count = value; break;
        case AT_BASE: stack->base = value; break;
        case AT_SECURE: stack->secure = value; break;
        case AT_NULL: stack->end = at + 2; return true;
        }
    }
    return false;
}

/* Whether the environment tells the loader nothing but where to look for libraries. */
static bool plain_environment(const struct stack *stack)
{
    for (size_t at = stack->environment; at + 1 < stack->auxiliary; at++) {
        uint64_t offset = stack->words[at] - stack->at;
        const char *name = stack->text + offset;
        if (offset >= stack->bytes || !memchr(name, 0, stack->bytes - offset))
            return false;
        if (!strncmp(name, "LD_", 3) && strncmp(name, "LD_LIBRARY_PATH=", 16))
            return false;
    }
    return true;
}

/* Whether none of the libraries that a program names insists on being the first. */
static bool plain_libraries(pid_t tid, uint64_t bias, uint64_t dynamic, uint64_t bytes)
{
    static const char *const sanitizers[] = {"libasan.", "libhwasan.", "liblsan.", "libtsan.", "libclang_rt."};
    Elf64_Dyn entries[MOST_ENTRIES];
    char names[MOST_NEEDED][NAME_BYTES];
    struct iovec here = {names, 0}, there[MOST_NEEDED];
    uint64_t strings = 0;
    unsigned needed = 0;
    if (bytes > sizeof entries || !read_exactly(tid, bias + dynamic, entries, bytes))
        return false;
    for (size_t at = 0; at < bytes / sizeof *entries && entries[at].d_tag != DT_NULL; at++) {
        if (entries[at].d_tag == DT_STRTAB)
            strings = bias + entries[at].d_un.d_ptr;
        else if (entries[at].d_tag == DT_NEEDED && needed == MOST_NEEDED)
            return false;
        else if (entries[at].d_tag == DT_NEEDED)
            there[needed++] = (struct iovec){(void *)entries[at].d_un.d_val, NAME_BYTES};
    }
    for (unsigned at = 0; at < needed; at++)
        there[at].iov_base = (char *)there[at].iov_base + strings;
    here.iov_len = (size_t)needed * NAME_BYTES;
    if (needed && process_vm_readv(tid, &here, 1, there, needed, 0) != (ssize_t)here.iov_len)
        return false;
    for (unsigned at = 0; at < needed; at++)
        for (size_t one = 0; one < sizeof sanitizers / sizeof *sanitizers; one++)
            if (!strncmp(names[at], sanitizers[one], strlen(sanitizers[one])))
                return false;
    return true;
}

/* Whether the C library's loader loads the program, and may load one library more. */
static bool takes_library(pid_t tid, const struct stack *stack)
{
    Elf64_Phdr headers[MOST_HEADERS];
    char loader[sizeof LOADER];
    uint64_t bias = 0, dynamic = 0, dynamic_bytes = 0, named = 0;
    if (!stack->base || stack->secure || !stack->headers_count || stack->headers_count > MOST_HEADERS ||
        !read_exactly(tid, stack->headers, headers, stack->headers_count * sizeof *headers))
        return false;
    for (uint64_t at = 0; at < stack->headers_count; at++) {
        const Elf64_Phdr *header = &headers[at];
        if (header->p_type == PT_PHDR) {
            bias = stack->headers - header->p_vaddr;
        } else if (header->p_type == PT_INTERP && header->p_filesz == sizeof LOADER) {
            named = header->p_vaddr;
        } else if (header->p_type == PT_DYNAMIC) {
            dynamic = header->p_vaddr;
            dynamic_bytes = header->p_filesz;
        }
    }
    return named && dynamic && read_exactly(tid, bias + named, loader, sizeof loader) &&
           !memcmp(loader, LOADER, sizeof LOADER) && plain_libraries(tid, bias, dynamic, dynamic_bytes);
}

/* Copies the table down, with the variables, and lets the program begin there. */
static bool add_variables(pid_t tid, const struct stack *stack)
{
    static union {
        uint64_t words[sizeof stack->words / sizeof *stack->words + 2];
        char text[sizeof stack->words + sizeof variables];
    } block;
    size_t lengths[2] = {strlen(variables[0]) + 1, strlen(variables[1]) + 1};
    size_t before = stack->auxiliary - 1; /* words up to the end of the environment */
    size_t table = (stack->end + 2) * sizeof(uint64_t), bytes = table + lengths[0] + lengths[1];
    uint64_t at = (stack->at - bytes) & ~(uint64_t)15;
    memcpy(block.words, stack->words, before * sizeof(uint64_t));
    block.words[before] = at + table;
    block.words[before + 1] = at + table + lengths[0];
    memcpy(block.words + before + 2, stack->words + before, (stack->end - before) * sizeof(uint64_t));
    memcpy(block.text + table, variables[0], lengths[0]);
    memcpy(block.text + table + lengths[0], variables[1], lengths[1]);
    struct iovec here = {&block, bytes}, there = {(void *)at, bytes};
    return process_vm_writev(tid, &here, 1, &there, 1, 0) == (ssize_t)bytes &&
           !ptrace(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, rsp), at);
}

struct program *inject(pid_t tid, const char *path)
{
    static struct stack stack;
    struct user_regs_struct registers;
    if (!library || !*path)
        return NULL;
    struct program *program = program_of(path);
    if (program->executed >= 2 && program->made / program->executed < WORTH_CALLS)
        return NULL;
    if (ptrace(PTRACE_GETREGS, tid, 0, &registers))
        return NULL;
    stack.at = registers.rsp;
    stack.headers = stack.headers_count = stack.base = stack.secure = 0;
    if (!same_user(tid) || !read_stack(tid, &stack) || !plain_environment(&stack) || !takes_library(tid, &stack) ||
        !add_variables(tid, &stack))
        return NULL;
    program->executed++;
    return program;
}
