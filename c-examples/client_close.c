/* A client that connects and closes, without sending a byte.
 *
 *     client_close [-s] HOST PORT
 *
 * The server reads its FIN as end of file. Until the server closes too, the client's side is in FIN_WAIT2 and the
 * server's in CLOSE_WAIT; afterwards the client's side is in TIME_WAIT and the server's is gone.
 *
 *     -s    shut only the writing side, then read until the server closes too, and print the count of bytes
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error) {
        fprintf(stderr, "client_close: %s port %s: %s\n", host, port, gai_strerror(error));
        exit(1);
    }
    int fd = -1, why = 0; /* close and freeaddrinfo may change errno */
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) {
            why = errno;
        } else if (connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
            why = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd < 0) {
        fprintf(stderr, "client_close: connect: %s\n", strerror(why));
        exit(1);
    }
    return fd;
}

/* The port that names this connection in the output of ss. */
static void print_local_port(int fd)
{
    struct sockaddr_storage local;
    socklen_t length = sizeof local;
    char port[NI_MAXSERV];
    if (getsockname(fd, (struct sockaddr *)&local, &length) == 0 &&
        getnameinfo((struct sockaddr *)&local, length, NULL, 0, port, sizeof port, NI_NUMERICSERV) == 0)
        printf("client_close: connected from port %s\n", port);
    fflush(stdout);
}

static void shut_and_wait(int fd)
{
    char bytes[4096];
    unsigned long long total = 0;
    ssize_t got;
    if (shutdown(fd, SHUT_WR) < 0) {
        perror("client_close: shutdown");
        exit(1);
    }
    printf("client_close: shut the writing side\n");
    fflush(stdout);
    while ((got = read(fd, bytes, sizeof bytes)) > 0)
        total += (unsigned long long)got;
    if (got < 0) {
        perror("client_close: read");
        exit(1);
    }
    printf("client_close: end of file after %llu bytes\n", total);
}

int main(int argc, char **argv)
{
    int shut = argc > 1 && strcmp(argv[1], "-s") == 0;
    if (argc - shut != 3) {
        fprintf(stderr, "usage: client_close [-s] HOST PORT\n");
        return 2;
    }
    int fd = connect_to(argv[1 + shut], argv[2 + shut]);
    print_local_port(fd);
    if (shut)
        shut_and_wait(fd);
    close(fd);
    printf("client_close: closed\n");
    return 0;
}
