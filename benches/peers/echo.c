/* The C ABI under load: one worker and one reactor, like the servers that it is compared with. */
#include <stdio.h>
#include <tine.h>

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    return tine_conn_send(conn, message, length);
}

static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("echo: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(void)
{
    tine_server *server = tine_server_new();
    tine_log_to(TINE_LOG_ERROR, NULL, NULL);
    tine_server_listen(server, "127.0.0.1:0");
    tine_server_set_workers(server, 1);
    tine_server_set_reactors(server, 1);
    tine_server_on_receive(server, on_receive);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "echo: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
