/* A server with a callback that leaks memory. */
#include <stdio.h>
#include <stdlib.h>
#include <tine.h>

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    char *volatile lost = malloc(100);
    lost = NULL;
    (void)lost;
    return tine_conn_send(conn, message, length);
}

static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("leaky: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    tine_server *server = tine_server_new();
    tine_server_listen(server, argc > 1 ? argv[1] : "127.0.0.1:0");
    tine_server_on_receive(server, on_receive);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    tine_server_free(server);
    return status != TINE_OK;
}
