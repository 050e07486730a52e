/* Puts jumps to the code inside where the loader and the C library make calls that it makes for them. */
#define _GNU_SOURCE
#include "texts.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define COMMON_BYTES 13
#define STUB_BYTES 17

static uint8_t *put_bytes(uint8_t *at, const void *bytes, size_t count)
{
    memcpy(at, bytes, count);
    return at + count;
}

static uint8_t *put_offset(uint8_t *at, const uint8_t *target)
{
    int32_t offset = (int32_t)(target - (at + 4));
    return put_bytes(at, &offset, sizeof offset);
}

/* The instruction that the jump takes the place of; lea SYSCALL(%rip),%rcx; jmp COMMON */
static uint8_t *put_stub(uint8_t *at, const uint8_t *site, const uint8_t *common)
{
    at = put_bytes(put_bytes(at, site, MOVE_BYTES), "\x48\x8d\x0d", 3);
    at = put_offset(at, site + MOVE_BYTES);
    return put_offset(put_bytes(at, "\xe9", 1), common);
}

/* Whether all sites are there in the copy; what the jumps lead to is put behind the code, where it does not fill its last
 * page. */
static bool put_jumps(uint8_t *text, const struct sites *sites, uint64_t entry)
{
    uint8_t *common = text + (sites->room - sites->text) + FIRST_BYTES;
    uint8_t *next = put_bytes(common, "\x49\xbb", 2); /* movabs $entry,%r11; jmp *%r11 */
    next = put_bytes(put_bytes(next, &entry, sizeof entry), "\x41\xff\xe3", 3);
    for (const struct site *site = sites->sites; site < sites->sites + sites->count; site++) {
        uint8_t *there = text + (site->at - sites->text), *stub = next;
        if (memcmp(there, site->bytes, SITE_BYTES))
            return false;
        next = put_stub(stub, there, common);
        put_offset(put_bytes(there, "\xe9", 1), stub);
    }
    return true;
}

bool texts_prepare(const char *path, const struct sites *sites, int record, uint64_t at, uint64_t entry, const char *first,
                   size_t first_bytes)
{
    if (first_bytes > FIRST_BYTES || FIRST_BYTES + COMMON_BYTES + sites->count * STUB_BYTES > sites->room_bytes)
        return false;
    uint8_t *text = mmap(NULL, sites->text_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, record, (off_t)at);
    if (text == MAP_FAILED)
        return false;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t bytes = sites->room - sites->text;
    bool prepared = file >= 0 && pread(file, text, bytes, (off_t)sites->text) == (ssize_t)bytes &&
                    put_jumps(text, sites, entry);
    memcpy(text + bytes, first, first_bytes);
    if (file >= 0)
        close(file);
    munmap(text, sites->text_bytes);
    return prepared;
}
