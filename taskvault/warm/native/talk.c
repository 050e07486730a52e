/* See talk.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "talk.h"

long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

bool await(int peer, short events, long long deadline)
{
    for (;;) {
        struct pollfd wanted = {peer, events, 0};
        long long left = deadline == NEVER ? -1 : deadline - now_ms();
        int ready = poll(&wanted, 1, deadline == NEVER ? -1 : left > 0 ? (int)left : 0);
        if (ready > 0)
            return true;
        if (ready == 0 || errno != EINTR)
            return false;
    }
}

bool send_all(int peer, const void *content, size_t length, const struct descriptors *given, long long deadline)
{
    char space[CMSG_SPACE(sizeof(int) * MOST_DESCRIPTORS)] = {0};
    while (length) {
        struct iovec part = {(void *)content, length};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        if (given) {
            message.msg_control = space;
            message.msg_controllen = CMSG_SPACE(sizeof(int) * given->count);
            struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
            rights->cmsg_level = SOL_SOCKET;
            rights->cmsg_type = SCM_RIGHTS;
            rights->cmsg_len = CMSG_LEN(sizeof(int) * given->count);
            memcpy(CMSG_DATA(rights), given->at, sizeof(int) * given->count);
        }
        ssize_t sent = sendmsg(peer, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!await(peer, POLLOUT, deadline))
                return false;
            continue;
        }
        if (sent <= 0)
            return false;
        content = (const char *)content + sent;
        length -= (size_t)sent;
        given = NULL;
    }
    return true;
}

static bool take(struct msghdr *message, struct descriptors *taken)
{
    struct cmsghdr *rights = CMSG_FIRSTHDR(message);
    if (message->msg_flags & MSG_CTRUNC)
        return false;
    if (!rights || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
        return true;
    size_t count = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    if (count > MOST_DESCRIPTORS - taken->count)
        return false;
    memcpy(taken->at + taken->count, CMSG_DATA(rights), sizeof(int) * count);
    taken->count += count;
    return true;
}

bool receive_all(int peer, void *content, size_t length, struct descriptors *taken, long long deadline)
{
    while (length) {
        char space[CMSG_SPACE(sizeof(int) * MOST_DESCRIPTORS)];
        struct iovec part = {content, length};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
        if (!await(peer, POLLIN, deadline))
            return false;
        ssize_t got = recvmsg(peer, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got <= 0 || !take(&message, taken))
            return false;
        content = (char *)content + got;
        length -= (size_t)got;
    }
    return true;
}

int write_all(int stream, const char *content, size_t length)
{
    while (length) {
        ssize_t written = write(stream, content, length);
        if (written < 0 && errno == EAGAIN) {
            struct pollfd wanted = {stream, POLLOUT, 0};
            poll(&wanted, 1, -1);
        } else if (written < 0 && errno != EINTR) {
            return errno;
        } else if (written > 0) {
            content += written;
            length -= (size_t)written;
        }
    }
    return 0;
}
