/* A chat: each line of a client goes to all others.
 *
 *     chat [ADDRESS:PORT]        default 127.0.0.1:9501; port 0 picks a free one
 *
 * A client's connection is one worker's business, and the others of the room are other workers'. Workers share no
 * memory unless it was mapped with MAP_SHARED before the server forks: the list of who is in the room is there. So it
 * is also there after a worker has died, and the worker that replaces it finds everybody. Their connections live on in
 * the master.
 *
 * What processes share, any of them may leave half done: it can be killed at every instruction. A lock would stay
 * locked. There is none here: a seat in the room is one number, which is written whole or not at all.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <tine.h>

enum { SEATS = 1024, LONGEST_LINE = 1024 };

/* Who is in the room; 0, which is no connection's number, for an empty seat. Numbers are never given out twice: one
 * that should stay behind, because a worker died in `connect` or twice in `close`, costs a seat, and what is sent to it
 * is dropped.
 */
struct room {
    _Atomic uint64_t seats[SEATS];
};

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "processes can share no lock that the compiler makes");

/* Runs in a worker, for each client that has come. */
static tine_status on_connect(tine_conn conn, void *state)
{
    struct room *room = state;
    /* Run again after a worker has died in it: it may have taken a seat already. */
    for (size_t i = 0; i < SEATS; i++)
        if (atomic_load(&room->seats[i]) == conn.id)
            return TINE_OK;
    for (size_t i = 0; i < SEATS; i++) {
        uint64_t empty = 0;
        if (atomic_compare_exchange_strong(&room->seats[i], &empty, conn.id))
            return TINE_OK;
    }
    static const char full[] = "The room is full.\n";
    tine_conn_send(conn, full, sizeof full - 1);
    return tine_conn_close(conn);
}

/* Runs in a worker, for each line. Nothing that it sends leaves before it returns: when the worker is killed in the
 * middle, nobody has got the line, and another worker runs this again. Others' lines may come to one client in another
 * order than to the next.
 */
static tine_status on_receive(tine_conn conn, const void *line, size_t length, void *state)
{
    struct room *room = state;
    for (size_t i = 0; i < SEATS; i++) {
        tine_conn other = {atomic_load(&room->seats[i])};
        if (other.id == 0 || other.id == conn.id)
            continue;
        /* Takes a copy and waits for nobody. Who does not read is closed by the server, when too much waits. */
        tine_status status = tine_conn_send(other, line, length);
        if (status != TINE_OK)
            return status;
    }
    return TINE_OK;
}

/* Runs in a worker, for each client that has gone. */
static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    (void)closed;
    struct room *room = state;
    for (size_t i = 0; i < SEATS; i++) {
        uint64_t taken = conn.id;
        if (atomic_compare_exchange_strong(&room->seats[i], &taken, 0))
            break;
    }
    return TINE_OK;
}

/* Runs in the master, once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("chat: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct room *room = mmap(NULL, sizeof *room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) {
        perror("chat: mmap");
        return 1;
    }
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_listener_set_delimiter(listener, "\n", 1);
    tine_listener_set_max_message(listener, LONGEST_LINE);
    tine_server_add_listener(server, listener);
    tine_server_set_workers(server, 2);
    tine_server_set_crash_redeliver(server, 2);
    tine_server_set_userdata(server, room);
    tine_server_on_connect(server, on_connect);
    tine_server_on_receive(server, on_receive);
    tine_server_on_close(server, on_close);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "chat: %s\n", tine_last_error());
    tine_server_free(server);
    munmap(room, sizeof *room);
    return status != TINE_OK;
}
