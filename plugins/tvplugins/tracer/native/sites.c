/* Finds where the C library and its loader make system calls, surely enough to write there.
 *
 * Compilers make of a system call in C: mov $NUMBER,%eax; syscall; cmp $-4095,%rax (or $-4096, or %eax).  That is 12
 * or 13 bytes, of which only the number is not always the same.  They can be nothing else: a prefix before `mov` is
 * looked for, and where its first byte were part of another instruction, that would read through rax, which the system
 * call could not use then.  Between the two may be others; then mov $AT_FDCWD,%edi is taken, if it is the last, which
 * is never an address, for those are shorter.  Only the 5 bytes of a `mov` are written over, with one jump: whoever
 * jumps to the `syscall` behind it still finds it, and nobody jumps into a `mov`.
 */
#define _GNU_SOURCE
#include "sites.h"

#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared.h"

#define PAGE 4096ul
#define MOST_BETWEEN 16 /* bytes from one `mov` to the other */

static bool is_wanted(uint32_t number, const int *others)
{
#define CALL(name) SYS_##name,
    static const uint32_t inside[] = {INSIDE(CALL)};
#undef CALL
    for (size_t at = 0; at < sizeof inside / sizeof *inside; at++)
        if (number == inside[at])
            return true;
    for (; *others >= 0; others++)
        if (number == (uint32_t)*others)
            return true;
    return false;
}

static bool compares_result(const unsigned char *at)
{
    if (at[0] == 0x48)
        at++;
    return at[0] == 0x3d && at[1] <= 1 && at[2] == 0xf0 && at[3] == 0xff && at[4] == 0xff;
}

static bool loads_wanted(const unsigned char *at, const int *others)
{
    uint32_t number;
    memcpy(&number, at + 1, sizeof number);
    return at[0] == 0xb8 && (at[-1] & 0xf0) != 0x40 && at[-1] != 0x66 && is_wanted(number, others);
}

/* Whether the five bytes are mov $NUMBER,%eax or, a little after that, mov $AT_FDCWD,%edi. */
static bool is_move(const unsigned char *at, const int *others)
{
    if (memcmp(at, "\xbf\x9c\xff\xff\xff", MOVE_BYTES) || (at[-1] & 0xf0) == 0x40 || at[-1] == 0x66)
        return loads_wanted(at, others);
    for (int back = MOVE_BYTES; back <= MOST_BETWEEN; back++)
        if (loads_wanted(at - back, others))
            return true;
    return false;
}

static void find_in(const unsigned char *code, uint64_t from, uint64_t to, const int *others, struct sites *file)
{
    for (uint64_t at = from + 32; at + 8 <= to && file->count < MOST_SITES; at++) {
        const unsigned char *found = memmem(code + at, to - at - 6, "\x0f\x05", 2);
        if (!found)
            return;
        at = (uint64_t)(found - code);
        if (compares_result(found + 2) && is_move(found - MOVE_BYTES, others)) {
            struct site *site = &file->sites[file->count++];
            site->at = (uint32_t)(at - MOVE_BYTES);
            memcpy(site->bytes, found - MOVE_BYTES, SITE_BYTES);
        }
    }
}

static bool understand(const unsigned char *code, uint64_t bytes, const int *others, struct sites *file)
{
    const Elf64_Ehdr *head = (const Elf64_Ehdr *)code;
    const Elf64_Phdr *text = NULL;
    if (bytes < PAGE || memcmp(head->e_ident, ELFMAG, SELFMAG) || head->e_ident[EI_CLASS] != ELFCLASS64 ||
        head->e_machine != EM_X86_64 || head->e_type != ET_DYN || head->e_phoff + head->e_phnum * sizeof *text > PAGE)
        return false;
    for (const Elf64_Phdr *one = (const Elf64_Phdr *)(code + head->e_phoff), *end = one + head->e_phnum; one < end; one++)
        if (one->p_type == PT_LOAD && (one->p_flags & PF_X)) {
            if (text)
                return false;
            text = one;
        }
    /* Where it is in memory is where it is in the file, as long as it is read only. */
    if (!text || text->p_offset != text->p_vaddr || text->p_offset % PAGE || text->p_offset + text->p_filesz > bytes)
        return false;
    uint64_t end = text->p_offset + text->p_filesz;
    file->text = text->p_offset;
    file->text_bytes = (text->p_filesz + PAGE - 1) & ~(PAGE - 1);
    find_in(code, text->p_offset, end, others, file);
    file->room = end;
    file->room_bytes = file->text + file->text_bytes - end;
    for (uint64_t at = end; at < end + file->room_bytes; at++)
        if (at >= bytes || code[at])
            return false;
    return file->count > 0;
}

bool sites_find(const char *path, const int *others, struct sites *file)
{
    struct stat status;
    bool understood = false;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    *file = (struct sites){0};
    if (descriptor < 0)
        return false;
    if (!fstat(descriptor, &status) && S_ISREG(status.st_mode)) {
        uint64_t bytes = (uint64_t)status.st_size;
        void *code = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (code != MAP_FAILED) {
            understood = understand(code, bytes, others, file);
            file->entry = understood ? ((const Elf64_Ehdr *)code)->e_entry : 0;
            munmap(code, bytes);
        }
    }
    close(descriptor);
    if (!understood) {
        *file = (struct sites){0};
        return false;
    }
    file->device = status.st_dev;
    file->inode = status.st_ino;
    file->bytes = (uint64_t)status.st_size;
    file->changed_ns = (uint64_t)status.st_mtim.tv_sec * 1000000000 + (uint64_t)status.st_mtim.tv_nsec;
    return true;
}
