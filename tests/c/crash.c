/* A server with a callback that crashes as a message asks: `crash [ADDRESS:PORT [close|reply|redeliver|keep]]`.
 *
 * `abort`, `null` and `exit` end the worker in the first attempt; in the second, they are sent back. With `always `
 * before them, they end the worker in each attempt. `fail` returns a failure. Any other message is sent back.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tine.h>

static int *volatile nowhere;

static tine_status crash_by(const char *how)
{
    if (strcmp(how, "abort") == 0)
        abort();
    if (strcmp(how, "null") == 0)
        *nowhere = 1;
    if (strcmp(how, "exit") == 0)
        exit(7);
    return strcmp(how, "fail") == 0 ? TINE_ERROR_FAILED : TINE_OK;
}

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    static const char always[] = "always ";
    char text[64];
    uint8_t attempt;
    tine_status status = tine_conn_attempt(conn, &attempt);
    if (status != TINE_OK)
        return status;
    snprintf(text, sizeof text, "%.*s", (int)length - 1, (const char *)message);
    if (strncmp(text, always, sizeof always - 1) == 0)
        status = crash_by(text + sizeof always - 1);
    else if (attempt == 0)
        status = crash_by(text);
    return status == TINE_OK ? tine_conn_send(conn, message, length) : status;
}

static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("crash: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *policy = argc > 2 ? argv[2] : "close";
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:0");
    tine_listener_set_delimiter(listener, "\n", 1);
    tine_server_add_listener(server, listener);
    tine_server_set_workers(server, 1);
    if (strcmp(policy, "close") == 0)
        tine_server_set_crash_close(server);
    if (strcmp(policy, "reply") == 0)
        tine_server_set_crash_reply(server, "sorry\n", 6);
    if (strcmp(policy, "redeliver") == 0)
        tine_server_set_crash_redeliver(server, 2);
    if (strcmp(policy, "keep") == 0)
        tine_server_set_crash_keep(server);
    tine_server_on_receive(server, on_receive);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "crash: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
