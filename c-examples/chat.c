/* A chat with rooms: each line of a client goes to all others in its room.
 *
 *     chat [ADDRESS:PORT]        default 127.0.0.1:9501; port 0 picks a free one
 *
 * A client comes to the room `lobby`. `/join ROOM` takes it to another one, `/who` tells how many are in its room.
 *
 * The rooms are groups of the server: they belong to the master, as the connections do, and change by commit. So no worker
 * has to know who is where, and the death of a worker loses no member and no line. All members of a room see its lines in
 * the same order.
 */
#include <stdio.h>
#include <string.h>
#include <tine.h>

enum { LONGEST_LINE = 1024 };

static const char left[] = "* Somebody has left.\n";

/* A room; a name that the library owns is valid until the connection joins or leaves one, so it is copied. */
struct room {
    char name[TINE_MOST_NAME];
    size_t length;
};

static tine_status room_of(tine_conn conn, struct room *room)
{
    const void *name;
    tine_status status = tine_conn_group(conn, 0, &name, &room->length);
    if (status == TINE_OK && name)
        memcpy(room->name, name, room->length);
    return status;
}

static tine_status tell_others(tine_conn conn, const struct room *room, const void *line, size_t length)
{
    /* One copy of the line, however many there are. It never waits: the server closes a client that does not read, over the
     * output limit. */
    return tine_publish(room->name, room->length, line, length, conn);
}

static tine_status move_to(tine_conn conn, struct room *room, const char *next, size_t length)
{
    static const char came[] = "* Somebody has come.\n", refused[] = "* That name is too long.\n";
    if (length > sizeof room->name)
        return tine_conn_send(conn, refused, sizeof refused - 1);
    tine_status status = tine_conn_leave(conn, room->name, room->length);
    if (status == TINE_OK)
        status = tell_others(conn, room, left, sizeof left - 1);
    memcpy(room->name, next, length);
    room->length = length;
    if (status == TINE_OK)
        status = tine_conn_join(conn, room->name, room->length);
    if (status == TINE_OK)
        status = tell_others(conn, room, came, sizeof came - 1);
    return status;
}

/* Runs in a worker, for each client that has connected. */
static tine_status on_connect(tine_conn conn, void *state)
{
    (void)state;
    return tine_conn_join(conn, "lobby", 5);
}

/* Runs in a worker, for each line. Its output leaves when it returns: if the worker is killed before that, no client
 * has got the line, and another worker runs this again.
 */
static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    static const char join[] = "/join ", who[] = "/who";
    const char *line = message;
    size_t end = length - 1; /* of the line without its end, "\n" or "\r\n" */
    if (end > 0 && line[end - 1] == '\r')
        end--;
    struct room room;
    (void)state;
    tine_status status = room_of(conn, &room);
    if (status != TINE_OK)
        return status;
    if (end > sizeof join - 1 && memcmp(line, join, sizeof join - 1) == 0)
        return move_to(conn, &room, line + sizeof join - 1, end - (sizeof join - 1));
    if (end == sizeof who - 1 && memcmp(line, who, end) == 0) {
        char text[64];
        size_t size;
        status = tine_group_size(room.name, room.length, &size);
        if (status != TINE_OK)
            return status;
        int written = snprintf(text, sizeof text, "* %zu in this room\n", size);
        return tine_conn_send(conn, text, (size_t)written);
    }
    return tell_others(conn, &room, line, length);
}

/* Runs in a worker, when a client has gone. It is a member until this returns. */
static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    struct room room;
    (void)closed, (void)state;
    tine_status status = room_of(conn, &room);
    return status == TINE_OK ? tell_others(conn, &room, left, sizeof left - 1) : status;
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
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_listener_set_delimiter(listener, "\n", 1);
    tine_listener_set_max_message(listener, LONGEST_LINE);
    tine_server_add_listener(server, listener);
    tine_server_set_workers(server, 2);
    tine_server_set_crash_redeliver(server, 2);
    tine_server_on_connect(server, on_connect);
    tine_server_on_receive(server, on_receive);
    tine_server_on_close(server, on_close);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "chat: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
