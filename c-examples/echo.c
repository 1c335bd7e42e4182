/* An echo server in which every callback may crash, block or leak.
 *
 *     echo [ADDRESS:PORT]        default 127.0.0.1:9501; port 0 picks a free one
 */
#include <stdio.h>
#include <tine.h>

/* Runs in a worker, for each message. */
static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    return tine_conn_send(conn, message, length);
}

/* Runs in the master, once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("echo: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    tine_server *server = tine_server_new();
    tine_server_listen(server, argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_server_on_receive(server, on_receive);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "echo: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
