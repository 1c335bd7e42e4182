/* Clients that connect one after the other and stay, and the fate of each while no process accepts them.
 *
 *     backlog HOST PORT [CLIENTS]        10 by default, 100 at most
 *
 * A connection that the kernel has established waits in the listener's accept queue until the server accepts it. When
 * the queue is full, the kernel drops the SYN of the next client, which gets no answer. Each client here sends a byte,
 * and the server has a moment to accept it. The line of each client ends with the queue, if the listener is on this
 * machine: its length, and the limit of listen(2), which it may exceed by one.
 *
 * The clients' connections are closed at the end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DEFAULT_CLIENTS = 10, MOST_CLIENTS = 100 };
/* In milliseconds. A dropped SYN is sent again after a second: a client without an answer before that was dropped. */
enum { ANSWER = 500, MOMENT = 50 };

static void die(const char *what)
{
    fprintf(stderr, "backlog: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct addrinfo *look_up(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error) {
        fprintf(stderr, "backlog: %s port %s: %s\n", host, port, gai_strerror(error));
        exit(1);
    }
    return found;
}

/* Returns the result of connect(2): 0, or an errno(3). */
static int outcome(int fd)
{
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    int error, ready;
    socklen_t length = sizeof error;
    do
        ready = poll(&writable, 1, ANSWER);
    while (ready < 0 && errno == EINTR);
    if (ready == 0)
        return ETIMEDOUT;
    if (ready < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        die("connect");
    return error;
}

/* Connects one client, which stays, and prints its fate. */
static void come(const struct addrinfo *server, int number)
{
    int fd = socket(server->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    int error = connect(fd, server->ai_addr, server->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS)
        error = outcome(fd);
    printf("client %2d: ", number);
    if (error == 0)
        printf("%s", send(fd, "x", 1, MSG_NOSIGNAL) == 1 ? "connected" : "connected, and gone");
    else if (error == ETIMEDOUT)
        printf("no answer, its SYN was dropped");
    else
        printf("%s", strerror(error));
}

/* Requests the listeners of this family and port, sock_diag(7). */
static void ask(int netlink, int family, in_port_t port)
{
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 wanted;
    } request = {
        .header = {.nlmsg_len = sizeof request,
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .wanted = {.sdiag_family = (uint8_t)family, .sdiag_protocol = IPPROTO_TCP, .idiag_states = 1 << TCP_LISTEN},
    };
    request.wanted.id.idiag_sport = port;
    if (send(netlink, &request, sizeof request, 0) < 0)
        die("netlink: send");
}

/* Prints one listener: for listeners, the kernel reports the length and limit of the accept queue in the fields for
 * bytes. */
static void print_queue(const struct nlmsghdr *message, in_port_t port)
{
    const struct inet_diag_msg *listener = NLMSG_DATA(message);
    if (message->nlmsg_type == NLMSG_ERROR || message->nlmsg_len < NLMSG_LENGTH(sizeof *listener))
        return;
    if (listener->id.idiag_sport == port)
        printf("; %u in the queue, limit %u", listener->idiag_rqueue, listener->idiag_wqueue);
}

/* Reads the kernel's answer up to its end. */
static void print_answer(int netlink, in_port_t port)
{
    static _Alignas(struct nlmsghdr) char buffer[32 * 1024];
    for (;;) {
        ssize_t got = recv(netlink, buffer, sizeof buffer, 0);
        if (got < 0)
            die("netlink: recv");
        size_t left = (size_t)got;
        for (struct nlmsghdr *message = (struct nlmsghdr *)buffer; NLMSG_OK(message, left);
             message = NLMSG_NEXT(message, left)) {
            if (message->nlmsg_type == NLMSG_DONE || message->nlmsg_type == NLMSG_ERROR)
                return;
            print_queue(message, port);
        }
    }
}

static void print_queues(in_port_t port)
{
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (netlink < 0)
        die("netlink");
    ask(netlink, AF_INET, port);
    print_answer(netlink, port);
    ask(netlink, AF_INET6, port);
    print_answer(netlink, port);
    close(netlink);
}

int main(int argc, char **argv)
{
    char *end = NULL;
    long clients = argc > 3 ? strtol(argv[3], &end, 10) : DEFAULT_CLIENTS;
    if (argc < 3 || argc > 4 || (end && (end == argv[3] || *end)) || clients < 1 || clients > MOST_CLIENTS) {
        fprintf(stderr, "usage: backlog HOST PORT [CLIENTS, 1 to %d]\n", MOST_CLIENTS);
        return 2;
    }
    struct addrinfo *server = look_up(argv[1], argv[2]);
    /* At the same offset for both families. */
    in_port_t port = ((const struct sockaddr_in *)server->ai_addr)->sin_port;
    for (int number = 1; number <= clients; number++) {
        come(server, number);
        poll(NULL, 0, MOMENT);
        print_queues(port);
        printf("\n");
        fflush(stdout);
    }
    freeaddrinfo(server);
    return 0;
}
