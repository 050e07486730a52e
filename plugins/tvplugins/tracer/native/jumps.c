/* Puts jumps to the code inside where the loader and the C library make calls that it makes for them. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "inside.h"

#define COMMON_BYTES 13
#define STUB_BYTES 17

static uint8_t *put_byte(uint8_t *at, uint8_t byte)
{
    *at = byte;
    return at + 1;
}

static uint8_t *put_offset(uint8_t *at, const uint8_t *target)
{
    int32_t offset = (int32_t)(target - (at + 4));
    copy(at, &offset, 4);
    return at + 4;
}

/* The instruction that the jump takes the place of; lea SYSCALL(%rip),%rcx; jmp COMMON */
static uint8_t *put_stub(uint8_t *at, const uint8_t *site, const uint8_t *common)
{
    copy(at, site, MOVE_BYTES);
    at = put_byte(at + MOVE_BYTES, 0x48);
    at = put_byte(at, 0x8d);
    at = put_byte(at, 0x0d);
    at = put_offset(at, site + MOVE_BYTES);
    return put_offset(put_byte(at, 0xe9), common);
}

/* What is at a site; NULL if that is not what it should be, or lies elsewhere. */
static uint8_t *site_in(const struct site *site, uint8_t *at, size_t bytes, uint64_t from)
{
    uint8_t *there = at + (site->at - from);
    if (site->at < from || site->at + SITE_BYTES > from + bytes)
        return NULL;
    return same((const char *)there, (const char *)site->bytes, SITE_BYTES) ? there : NULL;
}

/* Puts jumps into the code of a file that has just been mapped, which nothing runs yet but the loader, and that waits
 * for us; `at` is where the byte `from` of the file is.  What they jump to is put behind the code, where it does not fill
 * its last page.  It stays executable all the time, so that nothing is lost where a system forbids to change it. */
static void patch(const struct patched_file *file, uint8_t *at, size_t bytes, uint64_t from, uint64_t used)
{
    uint64_t room = file->room + used - from;
    if (used + COMMON_BYTES + file->count * STUB_BYTES > file->room_bytes || room > bytes ||
        direct(SYS_mprotect, (long)at, (long)bytes, PROT_READ | PROT_WRITE | PROT_EXEC, 0, 0, 0))
        return;
    uint8_t *common = at + room;
    uint64_t to = (uint64_t)&entry;
    uint8_t *next = put_byte(put_byte(common, 0x49), 0xbb); /* movabs $entry,%r11; jmp *%r11 */
    copy(next, &to, 8);
    next = put_byte(put_byte(put_byte(next + 8, 0x41), 0xff), 0xe3);
    for (const struct site *site = file->sites; site < file->sites + file->count; site++) {
        uint8_t *there = site_in(site, at, bytes, from), *stub = next;
        if (there) {
            next = put_stub(stub, there, common);
            put_offset(put_byte(there, 0xe9), stub);
        }
    }
    direct(SYS_mprotect, (long)at, (long)bytes, PROT_READ | PROT_EXEC, 0, 0, 0);
}

bool map(struct state *state, struct frame *frame)
{
    const long *given = frame->arguments;
    struct stat status;
    long result = direct(SYS_mmap, given[0], given[1], given[2], given[3], given[4], given[5]);
    frame->number = result;
    if (failed(result) || !(given[2] & PROT_EXEC) || (int)given[4] < 0 ||
        direct(SYS_fstat, given[4], (long)&status, 0, 0, 0, 0))
        return true;
    for (const struct patched_file *file = state->shared->files; file < state->shared->files + PATCHED_FILES; file++)
        if (file->inode && file->inode == status.st_ino && file->device == status.st_dev &&
            file->bytes == (uint64_t)status.st_size &&
            file->changed_ns == (uint64_t)status.st_mtim.tv_sec * 1000000000 + (uint64_t)status.st_mtim.tv_nsec)
            patch(file, (uint8_t *)result, (size_t)given[1], (uint64_t)given[5], 0);
    return true;
}

/* Called before the program's first instruction. */
void begin(int record, const struct told *told)
{
    struct state *state = state_here();
    struct rlimit limit;
    if (direct(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)&limit, 0, 0) || limit.rlim_cur != RLIM_INFINITY)
        return; /* what the record takes would be missing */
    if (direct(SYS_mmap, (long)state, sizeof *state, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (long)state)
        return;
    state->shared = (struct shared *)(told->code + RECORD_FROM_CODE);
    if (direct(SYS_mmap, (long)state->shared, (long)told->room, PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, record, 0) != (long)state->shared)
        return;
    direct(SYS_madvise, (long)state->shared, (long)told->room, MADV_DONTDUMP, 0, 0, 0); /* it has holes, which a dump fills */
    state->key = (long)told->key;
    state->clock = (clock_function)told->clock;
    const struct patched_file *loader = &state->shared->files[0];
    patch(loader, (uint8_t *)(told->loader + loader->text), loader->text_bytes, loader->text, FIRST_BYTES);
}
