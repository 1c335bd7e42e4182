/* The bare epoll echo loop, one process, one thread: the base for measurements of the other servers.
 *
 *     epoll_echo [PORT]        default 9501; 0 picks a free one
 *
 * Level-triggered, one read for each event. A connection waits for EPOLLOUT only while the kernel does not take all of
 * an answer, and is not read meanwhile: a client that does not read delays no other, and costs at most one buffer.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 64 * 1024, BATCH = 512, BACKLOG = 4096 };

struct connection {
    int fd;
    char *unsent; /* bytes that the kernel has not taken yet, or NULL */
    size_t offset, length;
};

static int epoll_fd, listener, reserve;
/* Page-aligned: some processors copy several times slower to an address a few bytes past a page boundary. */
static _Alignas(4096) char buffer[BUFFER];

static void die(const char *what)
{
    fprintf(stderr, "epoll_echo: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Each descriptor appears once in a batch of events, so no later event of the batch is for a connection freed here. */
static void drop(struct connection *c)
{
    close(c->fd);
    free(c->unsent);
    free(c);
}

static int wait_for(struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};
    return epoll_ctl(epoll_fd, operation, c->fd, &event);
}

/* Sends as much as the kernel takes. Returns the number of bytes, or -1 if the connection is broken. */
static ssize_t send_some(int fd, const char *bytes, size_t length)
{
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return sent;
}

static void on_readable(struct connection *c)
{
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        drop(c);
        return;
    }
    ssize_t sent = send_some(c->fd, buffer, (size_t)got);
    if (sent == got)
        return;
    c->offset = 0;
    c->length = (size_t)(got - sent);
    if (sent < 0 || !(c->unsent = malloc(c->length)) || wait_for(c, EPOLL_CTL_MOD, EPOLLOUT) < 0) {
        drop(c);
        return;
    }
    memcpy(c->unsent, buffer + sent, c->length);
}

static void on_writable(struct connection *c)
{
    ssize_t sent = send_some(c->fd, c->unsent + c->offset, c->length - c->offset);
    if (sent < 0) {
        drop(c);
        return;
    }
    c->offset += (size_t)sent;
    if (c->offset < c->length)
        return;
    free(c->unsent);
    c->unsent = NULL;
    if (wait_for(c, EPOLL_CTL_MOD, EPOLLIN) < 0)
        drop(c);
}

/* Without free descriptors, the queue would wake the loop without end: the reserve descriptor is used to accept one
 * client and close it.
 */
static void turn_one_away(void)
{
    close(reserve);
    int fd = accept(listener, NULL, NULL);
    if (fd >= 0)
        close(fd);
    reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_acceptable(void)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && (errno == EMFILE || errno == ENFILE))
            turn_one_away();
        if (fd < 0)
            return;
        struct connection *c = calloc(1, sizeof *c);
        if (!c) {
            close(fd);
            return;
        }
        c->fd = fd;
        if (wait_for(c, EPOLL_CTL_ADD, EPOLLIN) < 0)
            drop(c);
    }
}

static void listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    int on = 1;

    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0)
        die("socket");
    /* Accepted sockets inherit TCP_NODELAY, without a system call for each. */
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        die("setsockopt");
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, BACKLOG) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        die("listen");
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll_ctl");
    printf("epoll_echo: listening on 127.0.0.1:%u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char *end = NULL;
    long port = argc > 1 ? strtol(argv[1], &end, 10) : 9501;
    if (argc > 2 || (end && (end == argv[1] || *end)) || port < 0 || port > 65535) {
        fprintf(stderr, "usage: epoll_echo [PORT]\n");
        return 2;
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (epoll_fd < 0 || reserve < 0)
        die("epoll_create1");
    listen_on((uint16_t)port);

    static struct epoll_event events[BATCH];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, BATCH, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c)
                on_acceptable();
            else if (c->unsent)
                on_writable(c);
            else
                on_readable(c);
        }
    }
}
