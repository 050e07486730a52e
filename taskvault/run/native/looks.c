/* Looks at many paths in one call: what Python would make of each `lstat` takes three times as long as the call itself.
 *
 * A path is a letter, l for what is there itself or s for where it leads if it is a symbolic link, and then the path, ended
 * by a NUL; one that does not begin with a slash begins at the directory `root`.  What is found is written as eight
 * numbers of 64 bits; eight times 0 is nothing.  Owner and device number are told of what is there itself only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NUMBERS 8
#define SECOND_NS 1000000000ull

/* Returns 0, or why one of them cannot be looked at. */
int taskvault_looks(const char *root, const char *paths, size_t count, uint64_t *found)
{
    int error = 0, above = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (above < 0)
        return errno;
    for (size_t n = 0; n < count && !error; n++, found += NUMBERS, paths += strlen(paths) + 1) {
        struct stat at;
        int itself = *paths == 'l';
        if (!fstatat(above, paths + 1, &at, itself ? AT_SYMLINK_NOFOLLOW : 0)) {
            const uint64_t told[NUMBERS] = {
                (uint64_t)at.st_dev,
                (uint64_t)at.st_ino,
                at.st_mode,
                (uint64_t)at.st_size,
                (uint64_t)at.st_mtim.tv_sec * SECOND_NS + (uint64_t)at.st_mtim.tv_nsec,
                (uint64_t)at.st_ctim.tv_sec * SECOND_NS + (uint64_t)at.st_ctim.tv_nsec,
                itself ? at.st_uid : 0,
                itself ? (uint64_t)at.st_rdev : 0,
            };
            memcpy(found, told, sizeof told);
        } else if (errno == ENOENT || errno == ENOTDIR) {
            memset(found, 0, NUMBERS * sizeof *found);
        } else {
            error = errno;
        }
    }
    close(above);
    return error;
}
