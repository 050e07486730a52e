/* Maps what the code inside needs, and the loader's and the C library's code with jumps to it. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "inside.h"

static bool is_open(const struct patched_file *file, long descriptor)
{
    struct stat status;
    return file->inode && !direct(SYS_fstat, descriptor, (long)&status, 0, 0, 0, 0) && file->inode == status.st_ino &&
           file->device == status.st_dev && file->bytes == (uint64_t)status.st_size &&
           file->changed_ns == (uint64_t)status.st_mtim.tv_sec * 1000000000 + (uint64_t)status.st_mtim.tv_nsec;
}

bool map(struct state *state, struct frame *frame)
{
    const long *given = frame->arguments;
    const struct patched_file *file = &state->shared->library;
    long result = -1;
    /* It is there already, and moved to its place; when it is mapped a second time it is not. */
    if (given[2] == (PROT_READ | PROT_EXEC) && (given[3] & MAP_FIXED) && (int)given[4] >= 0 &&
        given[1] + PAGE > (long)file->text_bytes && given[1] <= (long)file->text_bytes &&
        given[5] == (long)file->text && is_open(file, given[4]))
        result = direct(SYS_mremap, (long)image + LIBRARY_FROM_CODE, (long)file->text_bytes, (long)file->text_bytes,
                        MREMAP_MAYMOVE | MREMAP_FIXED, given[0], 0);
    if (failed(result))
        result = direct(SYS_mmap, given[0], given[1], given[2], given[3], given[4], given[5]);
    frame->number = result;
    return true;
}

static bool map_at(long at, size_t bytes, int protection, int flags, int record, uint64_t from)
{
    return direct(SYS_mmap, at, (long)bytes, protection, flags, record, (long)from) == at;
}

/* Called before the program's first instruction. */
void begin(int record, const struct told *told)
{
    struct state *state = state_here();
    struct shared *shared = (struct shared *)(image + RECORD_FROM_CODE);
    struct rlimit limit;
    if (direct(SYS_prlimit64, 0, RLIMIT_AS, 0, (long)&limit, 0, 0) || limit.rlim_cur != RLIM_INFINITY)
        return; /* what the record takes would be missing */
    if (!map_at((long)state, sizeof *state, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ||
        !map_at((long)shared, told->room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                record, 0))
        return;
    direct(SYS_madvise, (long)shared, (long)told->room, MADV_DONTDUMP, 0, 0, 0); /* it has holes, which a dump fills */
    state->shared = shared;
    state->key = (long)told->key;
    state->clock = (clock_function)told->clock;
    const struct patched_file *loader = &shared->loader, *library = &shared->library;
    if (library->inode)
        map_at((long)image + LIBRARY_FROM_CODE, library->text_bytes, PROT_READ | PROT_EXEC,
               MAP_PRIVATE | MAP_FIXED_NOREPLACE, record, library->prepared);
    /* In place of the code that the loader was mapped with, which nothing has run yet but what the tracer wrote behind
     * it, and that is there too. */
    map_at((long)(told->loader + loader->text), loader->text_bytes, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, record,
           loader->prepared);
}
