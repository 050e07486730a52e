/* Asks one thing again and again, from one or several processes, and prints in microseconds: how long one takes in all
 * (the time of everything, divided by how many there were), then the median and the 99th percentile of single ones.
 *
 *     client KIND DIRECTORY COUNT CLIENTS ROUND
 *
 * In C, so that what is measured is not the client: of an interpreter's 15 us for a request 3 are its own.  ROUND makes
 * names that no earlier call has used.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 64, BLOCK = 4096, WRITTEN = 1 << 20, SMALL = 1024 };

static char directory[3072], path[4096], block[BLOCK];
static int clients, round_number;

static void name_path(const char *kind, int client, int number) {
    snprintf(path, sizeof path, "%s/%s-%d-%d-%d", directory, kind, round_number, client, number);
}

static int must(int result) {
    if (result < 0)
        err(1, "%s", path);
    return result;
}

/* Each is called COUNT times. */

static void ask_attributes(int client, int number, int fd) {
    struct statx found;
    (void)client, (void)number;
    must(statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &found));
}

static void ask_absent(int client, int number, int fd) {
    struct stat found;
    (void)fd;
    name_path("absent", client, number);
    if (!stat(path, &found))
        errx(1, "%s is there", path);
}

static void read_file(int client, int number, int fd) {
    (void)client, (void)fd;
    snprintf(path, sizeof path, "%s/file%d", directory, number % FILES);
    int opened = must(open(path, O_RDONLY));
    must(pread(opened, block, BLOCK, 0));
    close(opened);
}

static void read_each(int client, int number, int fd) {
    (void)fd;
    snprintf(path, sizeof path, "%s/cold/file%d", directory, number * clients + client);
    int opened = must(open(path, O_RDONLY));
    must(pread(opened, block, BLOCK, 0));
    close(opened);
}

static void make_file(int client, int number, int fd) {
    (void)fd;
    name_path("made", client, number);
    int opened = must(open(path, O_RDWR | O_CREAT | O_EXCL, 0644));
    must(write(opened, block, SMALL));
    must(close(opened));
}

static void write_block(int client, int number, int fd) {
    (void)client;
    must(pwrite(fd, block, BLOCK, (off_t)number * BLOCK % WRITTEN));
}

static void read_anywhere(int client, int number, int fd) {
    static int opened = -1;
    static off_t blocks;
    (void)number, (void)fd;
    if (opened < 0) {
        snprintf(path, sizeof path, "%s/large", directory);
        opened = must(open(path, O_RDONLY));
        blocks = lseek(opened, 0, SEEK_END) / BLOCK;
        srandom(1000 * round_number + client);
    }
    must(pread(opened, block, BLOCK, random() % blocks * BLOCK));
}

static void list_names(int client, int number, int fd) {
    (void)client, (void)number, (void)fd;
    DIR *names = opendir(directory);
    if (!names)
        err(1, "%s", directory);
    while (readdir(names))
        ;
    closedir(names);
}

static const struct {
    const char *name;
    void (*ask)(int client, int number, int fd);
} KINDS[] = {
    {"getattr", ask_attributes}, {"absent", ask_absent}, {"open-read-close", read_file}, {"cold", read_each},
    {"create", make_file},       {"write", write_block}, {"list", list_names},    {"random", read_anywhere},
};

static double now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static int compare(const void *one, const void *other) {
    float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

int main(int argc, char **argv) {
    if (argc != 6)
        errx(2, "KIND DIRECTORY COUNT CLIENTS ROUND");
    snprintf(directory, sizeof directory, "%s", argv[2]);
    int count = atoi(argv[3]), start[2];
    clients = atoi(argv[4]), round_number = atoi(argv[5]);
    void (*ask)(int, int, int) = NULL;
    for (size_t kind = 0; kind < sizeof KINDS / sizeof *KINDS; kind++)
        if (!strcmp(KINDS[kind].name, argv[1]))
            ask = KINDS[kind].ask;
    if (!ask || pipe(start))
        errx(2, "no such kind: %s", argv[1]);
    size_t asked = (size_t)clients * count;
    float *each_us = mmap(NULL, asked * sizeof *each_us, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (each_us == MAP_FAILED)
        err(1, "mmap");
    for (int client = 0; client < clients; client++)
        if (!fork()) {
            char go;
            snprintf(path, sizeof path, "%s/own%d", directory, client);
            int fd = must(open(path, O_RDWR | O_CREAT, 0644));
            close(start[1]);
            /* The end of the pipe is the signal. */
            if (read(start[0], &go, 1))
                _exit(1);
            double before_us = now_us();
            for (int number = 0; number < count; number++) {
                ask(client, number, fd);
                double after_us = now_us();
                each_us[client * count + number] = after_us - before_us;
                before_us = after_us;
            }
            _exit(0);
        }
    usleep(5000); /* all have opened their file */
    double began_us = now_us();
    close(start[0]), close(start[1]);
    for (int client = 0, status; client < clients; client++)
        if (wait(&status) < 0 || status)
            errx(1, "a client failed");
    double all_us = now_us() - began_us;
    qsort(each_us, asked, sizeof *each_us, compare);
    printf("%.3f %.3f %.3f\n", all_us / asked, each_us[asked / 2], each_us[asked * 99 / 100]);
    return 0;
}
