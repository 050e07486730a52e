/* Where a file of code makes system calls. */
#ifndef SITES_H
#define SITES_H

#include <stdbool.h>

#include "shared.h"

/* Finds the calls of INSIDE and `others`, which end with -1, in an executable file, and where in memory it begins to
 * run, from its beginning.  False if it is not understood. */
bool sites_find(const char *path, const int *others, struct patched_file *file, uint64_t *entry);

#endif
