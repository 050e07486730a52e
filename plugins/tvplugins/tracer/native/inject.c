/* Gives programs the code of inside.c: has them map it before their first instruction.
 *
 * The kernel has mapped the program and its loader, and nothing of them has run.  A few instructions are written behind
 * the loader's code, where the last page has room and nothing is; the program begins there.  They map the code from the
 * record, call it, and go on to the loader with all registers as they were.  It has mapped other code for the loader by
 * then (texts.c), in which those instructions are the same.  That memory is the new program's own: what called execve is never written to, because after vfork its memory is its parent's too.
 *
 * Only where the loader is the file that is known, by its build ID.
 */
#define _GNU_SOURCE
#include "inject.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

#include "texts.h"

#define LOADER "/lib64/ld-linux-x86-64.so.2"
#define MOST_TEXT_BYTES (16l << 20)
#define HEAD_BYTES 1024 /* of the loader, with its build ID */

static const char *const libraries[] = {"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/usr/lib/libc.so.6"};

/* The first instructions of a program.  The kernel has left all registers zero but the stack pointer. */
__asm__(".pushsection .rodata\n"
        "bootstrap: mov $-100, %rdi\n" /* openat(AT_FDCWD, path of the record, O_RDWR | O_CLOEXEC), with the key */
        "lea 94f(%rip), %rsi\n"
        "mov $0x80002, %edx\n"
        "xor %r10d, %r10d\n"
        "mov 90f(%rip), %r9\n"
        "mov $257, %eax\n"
        "syscall\n"
        "test %eax, %eax\n"
        "js 2f\n"
        "mov %eax, %ebx\n"
        "mov 91f(%rip), %rdi\n" /* mmap: the code */
        "mov $16384, %esi\n"
        "mov $5, %edx\n"
        "mov $0x100002, %r10d\n"
        "mov %ebx, %r8d\n"
        "mov $32768, %r9d\n"
        "mov $9, %eax\n"
        "syscall\n"
        "cmp %rdi, %rax\n"
        "jne 1f\n"
        "mov %ebx, %edi\n" /* begin(record, told) */
        "lea 90f(%rip), %rsi\n"
        "call *%rax\n"
        "1: mov %ebx, %edi\n"
        "mov $3, %eax\n"
        "syscall\n"
        "2: xor %eax, %eax\n"
        "xor %ebx, %ebx\n"
        "xor %ecx, %ecx\n"
        "xor %edx, %edx\n"
        "xor %esi, %esi\n"
        "xor %edi, %edi\n"
        "xor %r8d, %r8d\n"
        "xor %r9d, %r9d\n"
        "xor %r10d, %r10d\n"
        "xor %r11d, %r11d\n"
        ".byte 0xe9\n" /* jmp to where the loader begins */
        "bootstrap_entry: .long 0\n"
        ".balign 8\n"
        "bootstrap_told: 90: .quad 0\n"
        "91: .quad 0, 0, 0, 0\n"
        "94: .fill 32, 1, 0\n"
        "bootstrap_end: .popsection\n");

extern const char bootstrap[], bootstrap_entry[], bootstrap_told[], bootstrap_end[];

/* What follows the instructions. */
struct filled {
    struct told told;
    char record[32];
};

/* The beginning of the image (inside.c). */
struct image {
    char jump[8];
    uint64_t entry, peek, peek_end, peek_unreadable;
};

_Static_assert(CODE_BYTES == 16384 && CODE_AT == 32768, "as the instructions above say");
_Static_assert(LIBRARY_FROM_CODE + MOST_TEXT_BYTES <= 0, "one before the other");
_Static_assert(sizeof(struct shared) <= CODE_AT && CODE_AT + CODE_BYTES <= FIRST_ENTRY, "one after the other");

static uint64_t key, code_at; /* 0: nothing is given to programs */
static struct sites loader;
static char loader_head[HEAD_BYTES];
static char first[FIRST_BYTES]; /* what is written into programs, but what they are told */
static struct image image;
static uint64_t clock_offset;
static uint64_t room;
static char record_path[32];

/* Where clock_gettime is in the page that the kernel gives every program; 0 if it is not found. */
static uint64_t find_clock(void)
{
    const char *page = (const char *)getauxval(AT_SYSINFO_EHDR);
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)page;
    const Elf64_Sym *symbols = NULL;
    const char *strings = NULL;
    const uint32_t *hash = NULL;
    if (!page)
        return 0;
    const Elf64_Phdr *parts = (const Elf64_Phdr *)(page + head->e_phoff);
    for (unsigned part = 0; part < head->e_phnum; part++) {
        if (parts[part].p_type != PT_DYNAMIC)
            continue;
        for (const Elf64_Dyn *one = (const Elf64_Dyn *)(page + parts[part].p_offset); one->d_tag; one++)
            if (one->d_tag == DT_SYMTAB)
                symbols = (const Elf64_Sym *)(page + one->d_un.d_ptr);
            else if (one->d_tag == DT_STRTAB)
                strings = page + one->d_un.d_ptr;
            else if (one->d_tag == DT_HASH)
                hash = (const uint32_t *)(page + one->d_un.d_ptr);
    }
    for (uint32_t at = 0; symbols && strings && hash && at < hash[1]; at++)
        if (!strcmp(strings + symbols[at].st_name, "__vdso_clock_gettime"))
            return symbols[at].st_value;
    return 0;
}

static bool load_image(const char *path, int descriptor)
{
    char code[CODE_BYTES];
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = file < 0 ? -1 : read(file, code, sizeof code);
    if (file >= 0)
        close(file);
    if (bytes < (ssize_t)sizeof image || pwrite(descriptor, code, (size_t)bytes, CODE_AT) != bytes)
        return false;
    memcpy(&image, code, sizeof image);
    return true;
}

/* Pages that neither programs, libraries and stacks nor the shadows of sanitizers are put at. */
static uint64_t address_from(uint64_t number)
{
    return 0x7e9000000000ul + ((number % (0x5000000000ul >> 12)) << 12);
}

/* The head of the loader's file, by which it is known in memory again: it must have a build ID. */
static bool read_head(void)
{
    int file = open(LOADER, O_RDONLY | O_CLOEXEC);
    bool there = file >= 0 && read(file, loader_head, HEAD_BYTES) == HEAD_BYTES;
    if (file >= 0)
        close(file);
    return there && memmem(loader_head, HEAD_BYTES, "\x14\0\0\0\3\0\0\0GNU", 12);
}

/* Prepares the code of a file before `*end` of the record, and moves that. */
static bool prepare(const char *path, const struct sites *found, int record, uint64_t *end, struct patched_file *file)
{
    bool is_loader = found == &loader;
    uint64_t at = *end - found->text_bytes;
    if (found->text_bytes > MOST_TEXT_BYTES || *end < FEWEST_BYTES + found->text_bytes ||
        !texts_prepare(path, found, record, at, code_at + image.entry, is_loader ? first : "",
                       is_loader ? (size_t)(bootstrap_end - bootstrap) : 0))
        return false;
    *end = at;
    *file = (struct patched_file){found->device, found->inode, found->bytes, found->changed_ns, found->text,
                                  found->text_bytes, at};
    return true;
}

void inject_begin(const char *path, uint64_t drawn, int descriptor, struct shared *shared)
{
    static const int of_loader[] = {SYS_mmap, -1}, of_library[] = {SYS_mlockall, -1};
    static struct sites library;
    uint64_t end = shared->room;
    clock_offset = find_clock();
    if (!clock_offset || bootstrap_end - bootstrap > FIRST_BYTES || !read_head() ||
        !sites_find(LOADER, of_loader, &loader) || !load_image(path, descriptor) ||
        snprintf(record_path, sizeof record_path, "/proc/%d/fd/%d", getpid(), descriptor) >= (int)sizeof record_path)
        return;
    int32_t to_entry = (int32_t)(loader.entry - (loader.room + (uint64_t)(bootstrap_entry - bootstrap) + sizeof to_entry));
    memcpy(first, bootstrap, (size_t)(bootstrap_end - bootstrap));
    memcpy(first + (bootstrap_entry - bootstrap), &to_entry, sizeof to_entry);
    code_at = address_from(drawn);
    if (!prepare(LOADER, &loader, descriptor, &end, &shared->loader))
        return;
    for (size_t one = 0; one < sizeof libraries / sizeof *libraries; one++)
        if (sites_find(libraries[one], of_library, &library)) {
            prepare(libraries[one], &library, descriptor, &end, &shared->library);
            break;
        }
    room = shared->room = end;
    key = drawn;
}

/* Whether the loader at `base` is the one that is known. */
static bool is_known(pid_t tid, uint64_t base)
{
    char there[HEAD_BYTES];
    struct iovec here = {there, HEAD_BYTES}, remote = {(void *)base, HEAD_BYTES};
    return process_vm_readv(tid, &here, 1, &remote, 1, 0) == HEAD_BYTES && !memcmp(there, loader_head, HEAD_BYTES);
}

bool inject(pid_t tid, uint64_t base, uint64_t kernel)
{
    char path[32];
    struct filled filled = {{key, code_at, base, kernel + clock_offset, room}, ""};
    size_t bytes = (size_t)(bootstrap_end - bootstrap);
    errno = 0;
    long pointer = key && base && kernel ? ptrace(PTRACE_PEEKUSER, tid, offsetof(struct user_regs_struct, rip), 0) : 0;
    if (!pointer || errno || (uint64_t)pointer != base + loader.entry || !is_known(tid, base))
        return false;
    memcpy(filled.record, record_path, sizeof record_path);
    memcpy(first + (bootstrap_told - bootstrap), &filled, sizeof filled);
    snprintf(path, sizeof path, "/proc/%d/mem", tid);
    int memory = open(path, O_WRONLY | O_CLOEXEC);
    if (memory < 0)
        return false;
    bool written = pwrite(memory, first, bytes, (off_t)(base + loader.room)) == (ssize_t)bytes;
    close(memory);
    return written && !ptrace(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, rip), base + loader.room);
}

bool inject_turn_off(pid_t tid)
{
    uint32_t off = 1;
    struct iovec here = {&off, sizeof off}, there = {(void *)(code_at + STATE_FROM_CODE), sizeof off};
    return !key || process_vm_writev(tid, &here, 1, &there, 1, 0) == sizeof off || errno == EFAULT || errno == ESRCH;
}

bool inject_takes_fault(pid_t tid)
{
    if (!key)
        return false;
    uint64_t at = (uint64_t)ptrace(PTRACE_PEEKUSER, tid, offsetof(struct user_regs_struct, rip), 0) - code_at;
    return at >= image.peek && at < image.peek_end &&
           !ptrace(PTRACE_POKEUSER, tid, offsetof(struct user_regs_struct, rip), code_at + image.peek_unreadable);
}
