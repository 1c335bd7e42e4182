/* A chat: each line of a client goes to all others.
 *
 *     chat [ADDRESS:PORT]        default 127.0.0.1:9501; port 0 picks a free one
 *
 * The members of the room are connections of several workers. Workers share no memory unless it was mapped with
 * MAP_SHARED before the server forks: the list of members is there. So it survives the death of a worker, and the next
 * worker finds all members. Their connections belong to the master.
 *
 * A process can be killed at any instruction, and leave shared memory half written, or a lock locked for good. There is
 * no lock here: a place in the room is one number, which is written atomically.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <tine.h>

enum { PLACES = 1024, LONGEST_LINE = 1024 };

/* The members' connections; 0, which is never an id, marks an empty place. Ids are never reused: one that is left
 * behind, because a worker died in `connect` or twice in `close`, takes up a place, and lines to it are dropped.
 */
struct room {
    _Atomic uint64_t places[PLACES];
};

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "processes cannot share the lock of an atomic that is not lock-free");

/* Runs in a worker, for each client that has connected. */
static tine_status on_connect(tine_conn conn, void *state)
{
    struct room *room = state;
    /* It may run again after a worker has died in it, and have taken a place already. */
    for (size_t i = 0; i < PLACES; i++)
        if (atomic_load(&room->places[i]) == conn.id)
            return TINE_OK;
    for (size_t i = 0; i < PLACES; i++) {
        uint64_t empty = 0;
        if (atomic_compare_exchange_strong(&room->places[i], &empty, conn.id))
            return TINE_OK;
    }
    static const char full[] = "The room is full.\n";
    tine_conn_send(conn, full, sizeof full - 1);
    return tine_conn_close(conn);
}

/* Runs in a worker, for each line. Its output leaves when it returns: if the worker is killed before that, no client
 * has got the line, and another worker runs this again. Two clients may get the lines of others in different orders.
 */
static tine_status on_receive(tine_conn conn, const void *line, size_t length, void *state)
{
    struct room *room = state;
    for (size_t i = 0; i < PLACES; i++) {
        tine_conn other = {atomic_load(&room->places[i])};
        if (other.id == 0 || other.id == conn.id)
            continue;
        /* Copies the line, and never waits. The server closes a client that does not read, over the output limit. */
        tine_status status = tine_conn_send(other, line, length);
        if (status != TINE_OK)
            return status;
    }
    return TINE_OK;
}

/* Runs in a worker, for each connection that has ended. */
static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    (void)closed;
    struct room *room = state;
    for (size_t i = 0; i < PLACES; i++) {
        uint64_t taken = conn.id;
        if (atomic_compare_exchange_strong(&room->places[i], &taken, 0))
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
