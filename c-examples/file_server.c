/* The files of a folder over HTTP/1.0: answers of any length, of which no byte passes a worker.
 *
 *     file_server [ADDRESS:PORT [FOLDER]]        default 127.0.0.1:9501, .
 *
 *     $ curl -O http://127.0.0.1:9501/README.md
 *
 * A worker opens the file and hands its descriptor over with tine_conn_send_file(); the server sends it as the client
 * takes it. A worker that is slow, crashes or is replaced meanwhile stops no download, and a thousand slow ones take no
 * memory.
 *
 * Of HTTP it has only what this takes: GET and HEAD, one request for each connection. Names are resolved beneath the
 * folder by the kernel, openat2(2): neither `..` nor a symbolic link leads out of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <tine.h>
#include <unistd.h>

enum { LONGEST_REQUEST = 16 * 1024 };

/* Opened before the fork: each process has a copy. */
static int folder = -1;

static const char *status_of(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return "404 Not Found";
    case EINVAL:
    case ENAMETOOLONG:
        return "400 Bad Request";
    case EACCES:
    case EPERM:
    case EXDEV: /* The name leads out of the folder. */
        return "403 Forbidden";
    default:
        return "500 Internal Server Error";
    }
}

static int digit(char hex)
{
    if ('0' <= hex && hex <= '9')
        return hex - '0';
    if ('a' <= hex && hex <= 'f')
        return hex - 'a' + 10;
    return 'A' <= hex && hex <= 'F' ? hex - 'A' + 10 : -1;
}

/* Copies a name without its %XX, up to '?'. Returns 0 if it has a NUL, or half of one. */
static int decode(const char *target, size_t length, char *name)
{
    for (size_t at = 0; at < length && target[at] != '?'; at++) {
        char byte = target[at];
        if (byte == '%') {
            int high = at + 2 < length ? digit(target[at + 1]) : -1;
            int low = high < 0 ? -1 : digit(target[at + 2]);
            if (low < 0)
                return 0;
            byte = (char)(high * 16 + low);
            at += 2;
        }
        if (byte == 0)
            return 0;
        *name++ = byte;
    }
    *name = 0;
    return 1;
}

/* Opens the file that a request names. Returns -1 with errno if there is none. */
static int open_target(const char *target, size_t length, struct stat *about)
{
    char name[LONGEST_REQUEST + 1];
    if (!decode(target, length, name)) {
        errno = EINVAL;
        return -1;
    }
    struct open_how how = {
        /* Not blocking: a FIFO would be waited for. */
        .flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    const char *relative = name[0] == '/' ? name + 1 : name;
    int file = (int)syscall(SYS_openat2, folder, relative, &how, sizeof how);
    if (file < 0)
        return -1;
    if (fstat(file, about) == 0 && S_ISREG(about->st_mode))
        return file;
    close(file);
    errno = ENOENT;
    return -1;
}

static tine_status send_head(tine_conn conn, const char *status, unsigned long long length)
{
    char head[256];
    int size = snprintf(head, sizeof head, "HTTP/1.0 %s\r\nContent-Length: %llu\r\nConnection: close\r\n\r\n", status,
                        length);
    return tine_conn_send(conn, head, (size_t)size);
}

static tine_status refuse(tine_conn conn, const char *status, int has_body)
{
    char body[64];
    int size = snprintf(body, sizeof body, "%s\n", status);
    tine_status done = send_head(conn, status, (unsigned long long)size);
    return done == TINE_OK && has_body ? tine_conn_send(conn, body, (size_t)size) : done;
}

static tine_status answer(tine_conn conn, const char *target, size_t length, int has_body)
{
    struct stat about;
    int file = open_target(target, length, &about);
    if (file < 0)
        return refuse(conn, status_of(errno), has_body);
    uint64_t size = (uint64_t)about.st_size;
    tine_status status = send_head(conn, "200 OK", size);
    if (status == TINE_OK && has_body)
        /* In order behind the head, and committed with it. */
        status = tine_conn_send_file(conn, file, 0, size);
    /* The server has a copy. */
    close(file);
    return status;
}

/* Runs in a worker, for each head of a request, which ends with an empty line. */
static tine_status on_receive(tine_conn conn, const void *request, size_t length, void *state)
{
    (void)state;
    const char *line = request, *end = memchr(line, '\r', length);
    const char *method_end = memchr(line, ' ', (size_t)(end - line));
    tine_status status;
    int is_get = method_end && method_end - line == 3 && memcmp(line, "GET", 3) == 0;
    int is_head = method_end && method_end - line == 4 && memcmp(line, "HEAD", 4) == 0;
    if (is_get || is_head) {
        const char *target = method_end + 1;
        const char *target_end = memchr(target, ' ', (size_t)(end - target));
        status = answer(conn, target, (size_t)((target_end ? target_end : end) - target), is_get);
    } else {
        status = refuse(conn, "400 Bad Request", 1);
    }
    return status == TINE_OK ? tine_conn_close(conn) : status;
}

/* Runs in the master, once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("file_server: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *path = argc > 2 ? argv[2] : ".";
    folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        perror(path);
        return 1;
    }
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_listener_set_delimiter(listener, "\r\n\r\n", 4);
    tine_listener_set_max_message(listener, LONGEST_REQUEST);
    tine_server_add_listener(server, listener);
    tine_server_set_workers(server, 2);
    tine_server_on_receive(server, on_receive);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "file_server: %s\n", tine_last_error());
    tine_server_free(server);
    close(folder);
    return status != TINE_OK;
}
