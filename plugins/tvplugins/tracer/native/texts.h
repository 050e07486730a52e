/* The code of the loader and of the C library, with jumps in it. */
#ifndef TEXTS_H
#define TEXTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared.h"
#include "sites.h"

/* Bytes behind a file's own code that `texts_prepare` leaves alone. */
#define FIRST_BYTES 512

/* Copies the code of the file `path` to `at` in `record`, and has it jump to `entry` where `sites` says.  Programs map
 * that in place of their own: nobody need write to code.  `first`, of `first_bytes`, comes to stand behind it.
 * False if that cannot be done. */
bool texts_prepare(const char *path, const struct sites *sites, int record, uint64_t at, uint64_t entry, const char *first,
                   size_t first_bytes);

#endif
