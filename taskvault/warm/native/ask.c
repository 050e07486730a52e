/* Asks the warm process for a replay, and gives back what it says.
 *
 * We send: "tvlaunc2", then four numbers of 32 bits (bytes that follow, umask, arguments, variables), then texts, each ended by
 * a NUL: our identity, the arguments, the variables.  Two descriptors come with it: the working directory, and the turn, a
 * pipe with one byte in it.  Who reads that byte may act: the warm process before it replays, or we before we do without it.
 * It answers N: not here; M: nothing is stored, and we are to run the command for it (run.c); or, when it has replayed, D,
 * four numbers (exit status; the one if what was written is lost; bytes of the report; bytes of parts), the report and the
 * parts; many bytes of parts come as a descriptor of a file in memory.  A part is the number of a stream in one byte, a
 * length of 32 bits, and that many bytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "launch.h"
#include "talk.h"

#define MAGIC "tvlaunc2"
#define ANSWER_MS 1500   /* to look at what counts; where much must be read, the next one finds it read */
#define REPLAY_MS 600000 /* it has begun: as long as it lives it goes on */
#define HEADER_BYTES 24
#define MOST_REPORT_BYTES 65536
#define MOST_INLINE_BYTES 65536

static size_t texts_length(char *const *texts, uint32_t *count)
{
    size_t length = 0;
    for (*count = 0; texts[*count]; ++*count)
        length += strlen(texts[*count]) + 1;
    return length;
}

/* Returns the end of the turn that is read. */
static int make_turn(void)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return -1;
    bool made = write(ends[1], "G", 1) == 1;
    close(ends[1]);
    if (made)
        return ends[0];
    close(ends[0]);
    return -1;
}

static bool take_turn(int turn)
{
    char it;
    ssize_t got;
    while ((got = read(turn, &it, 1)) < 0 && errno == EINTR)
        ;
    return got == 1;
}

static bool send_request(int peer, int turn, const char *identity, char *const *arguments, char *const *environment,
                         long long deadline)
{
    mode_t mask = umask(0);
    umask(mask);
    uint32_t numbers[4] = {0, mask, 0, 0};
    size_t length = strlen(identity) + 1 + texts_length(arguments, &numbers[2]);
    length += texts_length(environment, &numbers[3]);
    numbers[0] = (uint32_t)length;
    char *frame = malloc(HEADER_BYTES + length), *at = frame;
    const struct descriptors given = {{open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), turn}, 2};
    if (!frame || given.at[0] < 0 || length > 16 << 20)
        return false;
    at = mempcpy(at, MAGIC, 8);
    at = mempcpy(at, numbers, sizeof numbers);
    at = stpcpy(at, identity) + 1;
    for (char *const *text = arguments; *text; text++)
        at = stpcpy(at, *text) + 1;
    for (char *const *text = environment; *text; text++)
        at = stpcpy(at, *text) + 1;
    bool sent = send_all(peer, frame, HEADER_BYTES + length, &given, deadline);
    close(given.at[0]);
    free(frame);
    return sent;
}

static int write_parts(const char *parts, size_t length)
{
    int lost[3] = {0, 0, 0};
    while (length >= 5) {
        uint32_t size;
        int stream = parts[0] == 2 ? 2 : 1;
        memcpy(&size, parts + 1, sizeof size);
        if (size > length - 5)
            break;
        if (!lost[stream])
            lost[stream] = write_all(stream, parts + 5, size);
        parts += 5 + (size_t)size;
        length -= 5 + (size_t)size;
    }
    for (int stream = 1; stream <= 2; stream++) /* a reader that simply went is no trouble */
        if (lost[stream] && lost[stream] != EPIPE && lost[stream] != EBADF)
            return lost[stream];
    return 0;
}

/* `memory` is what came with the D. */
static void give_back(int peer, struct descriptors *memory)
{
    uint32_t numbers[4];
    long long deadline = now_ms() + REPLAY_MS;
    if (!receive_all(peer, numbers, sizeof numbers, memory, deadline))
        return;
    char *report = numbers[2] <= MOST_REPORT_BYTES ? malloc(numbers[2] + 1) : NULL, *parts;
    if (!report || !receive_all(peer, report, numbers[2], memory, deadline))
        return;
    if (numbers[3] > MOST_INLINE_BYTES) {
        parts = mmap(NULL, numbers[3], PROT_READ, MAP_PRIVATE, memory->count ? memory->at[0] : -1, 0);
        if (parts == MAP_FAILED)
            return;
    } else {
        parts = malloc(numbers[3] + 1);
        if (!parts || !receive_all(peer, parts, numbers[3], memory, deadline))
            return;
    }
    signal(SIGPIPE, SIG_IGN);
    int lost = write_parts(parts, numbers[3]);
    write_all(2, report, numbers[2]);
    if (!lost)
        _exit((int)numbers[0]);
    if (numbers[2])
        dprintf(2, "tv: what the command wrote could not be passed on: %s\n", strerror(lost));
    _exit((int)numbers[1]);
}

/* Which process listens there. */
static pid_t process_at(int peer)
{
    struct ucred theirs;
    socklen_t length = sizeof theirs;
    return getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &theirs, &length) ? 0 : theirs.pid;
}

static int connected(const char *place, bool *is_missing)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct ucred theirs;
    socklen_t length = sizeof theirs;
    int peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (peer < 0)
        return -1;
    strcpy(address.sun_path, place);
    if (connect(peer, (struct sockaddr *)&address, sizeof address)) {
        *is_missing = errno == ENOENT || errno == ECONNREFUSED;
    } else if (!getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &theirs, &length) && theirs.uid == geteuid()) {
        return peer;
    }
    close(peer);
    return -1;
}

void ask_warm_process(const char *python, const char *home, char *const *arguments, char *const *environment)
{
    char place[sizeof ((struct sockaddr_un *)0)->sun_path], identity[MOST_IDENTITY_BYTES], answer = 'N';
    bool is_missing = false;
    struct descriptors memory = {0};
    if (!describe_identity(identity, sizeof identity) ||
        !name_socket(python, home, identity, environment, place, sizeof place))
        return;
    int peer = connected(place, &is_missing), turn = peer < 0 ? -1 : make_turn();
    if (peer < 0 && is_missing)
        start_warm_process((const char *const[]){python, home, identity, place}, environment);
    long long deadline = now_ms() + ANSWER_MS;
    if (turn >= 0 && send_request(peer, turn, identity, arguments, environment, deadline)) {
        bool is_answered = receive_all(peer, &answer, 1, &memory, deadline);
        if (!is_answered && !take_turn(turn)) /* it has begun */
            is_answered = receive_all(peer, &answer, 1, &memory, now_ms() + REPLAY_MS);
        if (is_answered && answer == 'D')
            give_back(peer, &memory);
        else if (is_answered && answer == 'M' && has_our_rights(process_at(peer)))
            run_for_warm_process(peer);
    }
    if (turn >= 0)
        close(turn);
    if (peer >= 0)
        close(peer);
}
