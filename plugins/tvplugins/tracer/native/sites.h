/* Where a file of code makes system calls. */
#ifndef SITES_H
#define SITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOST_SITES 64
#define MOVE_BYTES 5 /* mov $CONSTANT,%REGISTER */
#define SITE_BYTES 7 /* and the syscall behind it */

struct site {
    uint32_t at; /* in the file, of the `mov` */
    unsigned char bytes[SITE_BYTES + 1];
};

struct sites {
    uint64_t device, inode, bytes, changed_ns; /* which file it is */
    uint64_t text, text_bytes; /* of the segment with its code: where it is in the file, whole pages */
    uint64_t room, room_bytes; /* behind its code, up to the end of the last page: nothing is there */
    uint64_t entry;            /* where in memory it begins to run, from its beginning */
    uint32_t count;
    struct site sites[MOST_SITES];
};

/* Finds the calls of INSIDE and `others`, which end with -1, in an executable file.  False if it is not understood. */
bool sites_find(const char *path, const int *others, struct sites *found);

#endif
