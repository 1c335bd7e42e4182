/* A `close` callback that ends its process, and the close of the connection after that.
 *
 *     close_exit [ADDRESS:PORT [base]]        default 127.0.0.1:9501; port 0 picks a free one
 *
 * In process mode the master has the socket, and goes on when a worker exits. This program sets the crash policy
 * `keep`, so the connection leaks: it stays in CLOSE_WAIT. By default the master would close it at once. With `base`,
 * base mode: the worker itself has the socket, and the kernel closes the descriptors of a process that exits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tine.h>

/* Runs in a worker, for each message. */
static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    return tine_conn_send(conn, message, length);
}

/* Runs in a worker, when a client has closed. The manager logs the worker's exit, and starts another worker. */
static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    (void)conn, (void)closed, (void)state;
    exit(255);
}

/* Runs in the master (base mode: in the manager), once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("close_exit: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int base = argc > 2 && strcmp(argv[2], "base") == 0;
    if (argc > 3 || (argc == 3 && !base)) {
        fprintf(stderr, "usage: close_exit [ADDRESS:PORT [base]]\n");
        return 2;
    }
    tine_server *server = tine_server_new();
    tine_server_listen(server, argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_server_set_workers(server, 2);
    if (base) {
        tine_server_set_mode(server, TINE_MODE_BASE);
    } else {
        tine_server_set_crash_keep(server);
        tine_server_set_close_deadline(server, TINE_NEVER);
    }
    tine_server_on_receive(server, on_receive);
    tine_server_on_close(server, on_close);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "close_exit: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
