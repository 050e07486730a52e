/* Runs a command of which nothing is stored: the warm process says how, observes it, and stores what it made.
 *
 * It has answered M.  We send G, with our three standard streams.  Then it sends
 *   X, five numbers of 32 bits (bytes that follow; arguments, variables, descriptors, kept) and descriptors: start this.  The
 *     bytes are the number that each descriptor shall have, the number of each of our own that stays open (pipes of make's jobserver;
 *     all others are closed), both in 32 bits, then texts, each ended by a NUL.  We answer P and its process number, or an error
 *     number below 0; when it has ended E and its exit status, -n if signal n ended it.  Both numbers have 32 bits.
 *   N: nothing has run, Python is to do it.
 *   D and four numbers, the first of which is the exit status: all is done.
 * What is started is our child: terminal, signals, limits and process group are ours.  If the warm process ends before the
 * command does, we pass on what that writes ourselves, and nothing is stored.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch.h"
#include "talk.h"

#define MOST_BYTES (16 << 20)
#define MOST_KEPT 64
#define LINGER_MS 1000 /* after the command has ended, how long its output may be silent while somebody else holds it open */
#define GO_MS 1000
#define LOOK_MS 20    /* between two looks whether it has ended, where the kernel does not tell */

struct order {
    struct descriptors given;
    uint32_t wanted[MOST_DESCRIPTORS];
    uint32_t kept[MOST_KEPT], kept_count;
    char **arguments, **environment;
};

/* What was started, and whether it runs. */
static volatile sig_atomic_t command;
static bool is_running;
static int its_end = -1;
static int its_output[2] = {-1, -1};

static const int FORWARDED[] = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGINT, SIGQUIT};
#define FORWARDED_COUNT (sizeof FORWARDED / sizeof *FORWARDED)
static struct sigaction before[FORWARDED_COUNT], before_children;

static bool in_foreground(void)
{
    int terminal = open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC);
    bool is_ours = terminal >= 0 && tcgetpgrp(terminal) == getpgrp();
    if (terminal >= 0)
        close(terminal);
    return is_ours;
}

/* The terminal sends SIGINT and SIGQUIT to the command as well. */
static void forward(int number)
{
    int error = errno;
    if ((number != SIGINT && number != SIGQUIT) || !in_foreground())
        kill(command, number);
    errno = error;
}

/* An ignored signal (nohup, a background job) stays ignored. */
static void forward_signals(void)
{
    struct sigaction ours = {.sa_handler = forward};
    for (size_t n = 0; n < FORWARDED_COUNT; n++)
        if (!sigaction(FORWARDED[n], NULL, &before[n]) && before[n].sa_handler != SIG_IGN)
            sigaction(FORWARDED[n], &ours, NULL);
}

static void stop_forwarding(void)
{
    is_running = false;
    for (size_t n = 0; n < FORWARDED_COUNT; n++)
        sigaction(FORWARDED[n], &before[n], NULL);
}

/* It was none after all. */
static void forget_command(void)
{
    if (is_running)
        stop_forwarding();
    if (command)
        waitpid(command, NULL, 0);
    command = 0;
}

/* --- starting -------------------------------------------------------------------------------------------------------- */

static char **take_texts(char **at, const char *end, uint32_t count)
{
    char **texts = calloc((size_t)count + 1, sizeof *texts);
    for (uint32_t n = 0; texts && n < count; n++) {
        char *nul = *at < end ? memchr(*at, 0, (size_t)(end - *at)) : NULL;
        if (!nul)
            return NULL;
        texts[n] = *at;
        *at = nul + 1;
    }
    return texts;
}

/* What it keeps of what it allocates is of one command. */
static bool receive_order(int peer, struct order *order)
{
    uint32_t numbers[5];
    if (!receive_all(peer, numbers, sizeof numbers, &order->given, NEVER))
        return false;
    size_t length = numbers[0], fixed = 4 * ((size_t)numbers[3] + numbers[4]);
    if (length > MOST_BYTES || numbers[1] > length || numbers[2] > length || numbers[3] > MOST_DESCRIPTORS ||
        numbers[4] > MOST_KEPT || fixed > length)
        return false;
    char *body = malloc(length + 1), *at = body;
    if (!body || !receive_all(peer, body, length, &order->given, NEVER) || order->given.count != numbers[3])
        return false;
    memcpy(order->wanted, at, 4 * (size_t)numbers[3]);
    memcpy(order->kept, at + 4 * (size_t)numbers[3], 4 * (size_t)numbers[4]);
    order->kept_count = numbers[4];
    at += fixed;
    order->arguments = take_texts(&at, body + length, numbers[1]);
    order->environment = order->arguments ? take_texts(&at, body + length, numbers[2]) : NULL;
    return order->environment && numbers[1] > 0;
}

/* Of our own only pipes that our caller gave to us. */
static bool is_given_pipe(int number)
{
    struct stat status;
    int flags = fcntl(number, F_GETFD);
    return number > 2 && flags >= 0 && !(flags & FD_CLOEXEC) && fstat(number, &status) == 0 && S_ISFIFO(status.st_mode);
}

static bool collides(const struct order *order)
{
    for (uint32_t kept = 0; kept < order->kept_count; kept++)
        for (size_t n = 0; n < order->given.count; n++)
            if (order->wanted[n] == order->kept[kept])
                return true;
    return false;
}

/* Puts the descriptors where they belong, and nothing else. */
static bool arrange(struct order *order, int *trouble)
{
    int above = 3;
    for (size_t n = 0; n < order->given.count; n++)
        if ((int)order->wanted[n] >= above)
            above = (int)order->wanted[n] + 1;
    *trouble = fcntl(*trouble, F_DUPFD_CLOEXEC, above);
    for (size_t n = 0; n < order->given.count; n++) /* out of each other's way */
        if ((order->given.at[n] = fcntl(order->given.at[n], F_DUPFD_CLOEXEC, above)) < 0)
            return false;
    bool stays[MOST_KEPT];
    for (uint32_t n = 0; n < order->kept_count; n++)
        stays[n] = is_given_pipe((int)order->kept[n]);
    if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC))
        return false;
    for (uint32_t n = 0; n < order->kept_count; n++)
        if (stays[n] && fcntl((int)order->kept[n], F_SETFD, 0))
            return false;
    for (size_t n = 0; n < order->given.count; n++)
        if (dup2(order->given.at[n], (int)order->wanted[n]) < 0)
            return false;
    return true;
}

static void become(struct order *order, const sigset_t *mask, int trouble)
{
    int error;
    if (arrange(order, &trouble)) {
        /* As `tv run` leaves them, whoever starts it. */
        signal(SIGPIPE, SIG_DFL);
        signal(SIGXFSZ, SIG_DFL);
        sigaction(SIGCHLD, &before_children, NULL);
        sigprocmask(SIG_SETMASK, mask, NULL);
        execve(order->arguments[0], order->arguments, order->environment);
    }
    error = errno;
    if (write(trouble, &error, sizeof error) < 0)
        _exit(126);
    _exit(127);
}

/* Opens what the command writes a second time: what is in a pipe does not end with one of its readers. */
static void keep_outputs(const struct order *order)
{
    for (size_t n = 0; n < order->given.count; n++)
        if (order->wanted[n] == 1 || order->wanted[n] == 2) {
            char place[64];
            snprintf(place, sizeof place, "/proc/self/fd/%d", order->given.at[n]);
            its_output[order->wanted[n] - 1] = open(place, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        }
}

/* Returns its process number, or an error number below 0. */
static int start(struct order *order)
{
    sigset_t all, mask;
    int trouble[2], error = 0;
    if (collides(order))
        return -EBUSY;
    if (pipe2(trouble, O_CLOEXEC))
        return -errno;
    keep_outputs(order);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &mask);
    pid_t child = fork();
    if (child == 0)
        become(order, &mask, trouble[1]);
    if (child > 0) {
        command = child;
        is_running = true;
        forward_signals();
    } else {
        error = errno;
    }
    sigprocmask(SIG_SETMASK, &mask, NULL);
    close(trouble[1]);
    while (!error && read(trouble[0], &error, sizeof error) < 0 && errno == EINTR)
        ;
    close(trouble[0]);
    for (size_t n = 0; n < order->given.count; n++)
        close(order->given.at[n]);
    if (!error)
        its_end = (int)syscall(SYS_pidfd_open, child, 0);
    else if (child > 0)
        forget_command();
    return error ? -error : child;
}

/* --- its end --------------------------------------------------------------------------------------------------------- */

/* It stays a zombie, so that nobody else gets its number as long as anybody may send it a signal. */
static int exit_status(void)
{
    siginfo_t info = {.si_status = SIGKILL}; /* what is not known is no success */
    while (waitid(P_PID, (id_t)command, &info, WEXITED | WNOWAIT) && errno == EINTR)
        ;
    return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
}

static bool has_ended(void)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)command, &info, WEXITED | WNOWAIT | WNOHANG) || info.si_pid;
}

static void pass_on(struct pollfd *source, int stream)
{
    char part[65536];
    ssize_t got = read(source->fd, part, sizeof part);
    if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
        source->fd = -1;
    else if (got > 0 && write_all(stream, part, (size_t)got))
        kill(command, SIGPIPE);
}

/* The warm process is gone. */
static void finish_alone(void)
{
    struct pollfd sources[2] = {{its_output[0], POLLIN, 0}, {its_output[1], POLLIN, 0}};
    signal(SIGPIPE, SIG_IGN);
    while (sources[0].fd >= 0 || sources[1].fd >= 0) {
        /* Asked first: what is written before its end is there when it is known to have ended. */
        bool ended = has_ended();
        int ready = poll(sources, 2, LINGER_MS);
        if (ready == 0 && ended)
            break;
        for (int n = 0; ready > 0 && n < 2; n++)
            if (sources[n].fd >= 0 && sources[n].revents)
                pass_on(&sources[n], n + 1);
    }
    int status = exit_status();
    _exit(status < 0 ? 128 - status : status);
}

/* --- what the warm process says -------------------------------------------------------------------------------------- */

static bool tell(int peer, char what, int32_t number)
{
    char said[1 + sizeof number];
    said[0] = what;
    memcpy(said + 1, &number, sizeof number);
    return send_all(peer, said, sizeof said, NULL, NEVER);
}

/* Returns false if there is nothing more to hear. */
static bool obey(int peer)
{
    struct order order = {0};
    struct descriptors unwanted = {0};
    uint32_t numbers[4];
    char what;
    if (!receive_all(peer, &what, 1, &order.given, NEVER))
        return false;
    if (what == 'X' && !command) {
        if (!receive_order(peer, &order))
            return false;
        int started = start(&order);
        return tell(peer, 'P', started);
    }
    if (what == 'D' && receive_all(peer, numbers, sizeof numbers, &unwanted, NEVER))
        _exit((int)numbers[0]);
    if (what == 'N') /* it knows that nothing has run */
        forget_command();
    return false;
}

void run_for_warm_process(int peer)
{
    const struct descriptors streams = {{0, 1, 2}, 3};
    struct sigaction plain = {.sa_handler = SIG_DFL};
    /* Where it is ignored nobody can wait for a child. */
    sigaction(SIGCHLD, &plain, &before_children);
    bool goes_on = send_all(peer, "G", 1, &streams, now_ms() + GO_MS);
    while (goes_on) {
        struct pollfd wanted[2] = {{peer, POLLIN, 0}, {its_end, POLLIN, 0}};
        int ready = poll(wanted, 2, is_running && its_end < 0 ? LOOK_MS : -1);
        if (is_running && has_ended()) {
            stop_forwarding();
            tell(peer, 'E', exit_status());
            close(its_end);
            its_end = -1;
        } else if (ready > 0 && wanted[0].revents) {
            goes_on = obey(peer);
        }
    }
    if (command)
        finish_alone();
    sigaction(SIGCHLD, &before_children, NULL);
}
