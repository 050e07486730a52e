/* Where a file of code makes system calls. */
#ifndef SITES_H
#define SITES_H

#include <stdbool.h>

#include "shared.h"

/* What of a loader is needed besides its sites. */
struct loader {
    uint64_t entry;           /* in memory, from its beginning */
    uint64_t room, room_bytes; /* behind its code, up to the end of the page: nothing is there */
};

/* Finds the calls of INSIDE and `others` in an executable file; also what `loader` says, unless it is NULL.
 * False if it is not understood. */
bool sites_find(const char *path, const int *others, struct patched_file *file, struct loader *loader);

#endif
