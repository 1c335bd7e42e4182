/* A `close` callback that blocks, and its connection in CLOSE_WAIT.
 *
 *     close_sleep [ADDRESS:PORT [deadline]]        default 127.0.0.1:9501; port 0 picks a free one
 *
 * The server closes its side of a connection when the callback has returned, here after 1000 seconds. This program sets
 * no close deadline, so the connection stays in CLOSE_WAIT until then. With `deadline` it keeps the default: the server
 * closes after 5 seconds, even if the callback has not returned.
 */
#include <stdio.h>
#include <string.h>
#include <tine.h>
#include <unistd.h>

/* Runs in a worker, for each message. */
static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    return tine_conn_send(conn, message, length);
}

/* Runs in a worker, when a client has closed. The master, which has the socket, waits for it. */
static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    (void)conn, (void)closed, (void)state;
    sleep(1000);
    return TINE_OK;
}

/* Runs in the master, once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("close_sleep: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int deadline = argc > 2 && strcmp(argv[2], "deadline") == 0;
    if (argc > 3 || (argc == 3 && !deadline)) {
        fprintf(stderr, "usage: close_sleep [ADDRESS:PORT [deadline]]\n");
        return 2;
    }
    tine_server *server = tine_server_new();
    tine_server_listen(server, argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_server_set_workers(server, 2);
    if (!deadline)
        tine_server_set_close_deadline(server, TINE_NEVER);
    tine_server_on_receive(server, on_receive);
    tine_server_on_close(server, on_close);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "close_sleep: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
