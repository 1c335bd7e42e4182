/* A program without standard streams: `holes FILE [base]`. It writes its address to the file.
 *
 * A message `close` closes the standard streams of the worker; any other is sent back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tine.h>
#include <unistd.h>

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    if (length >= 5 && memcmp(message, "close", 5) == 0)
        for (int stream = 0; stream < 3; stream++)
            close(stream);
    return tine_conn_send(conn, message, length);
}

static void on_start(const tine_started *started, void *path)
{
    char draft[4096];
    snprintf(draft, sizeof draft, "%s.draft", (const char *)path);
    FILE *file = fopen(draft, "w");
    if (file == NULL)
        return;
    fprintf(file, "%s\n", started->addresses[0].text);
    fclose(file);
    rename(draft, path);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    for (int stream = 0; stream < 3; stream++)
        close(stream);
    tine_server *server = tine_server_new();
    tine_server_listen(server, "127.0.0.1:0");
    tine_server_set_workers(server, 1);
    if (argc > 2)
        tine_server_set_mode(server, TINE_MODE_BASE);
    tine_server_on_receive(server, on_receive);
    tine_server_on_start(server, on_start, argv[1]);
    tine_status status = tine_server_run(server);
    tine_server_free(server);
    return status == TINE_OK ? 0 : 1;
}
