/* A server with TLS behind the PROXY protocol, which tells what it knows of a connection.
 *
 *     opening MODE CHAIN KEY AUTHORITY
 *
 * A message is a line with the number of a fact, or "peer".
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tine.h>

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    char line[1024];
    if (length > 4 && memcmp(message, "peer", 4) == 0) {
        struct sockaddr_storage peer;
        if (tine_conn_peer(conn, &peer))
            abort();
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&peer;
        char ip[INET_ADDRSTRLEN];
        snprintf(line, sizeof line, "%s %d\n", inet_ntop(AF_INET, &v4->sin_addr, ip, sizeof ip), ntohs(v4->sin_port));
        return tine_conn_send(conn, line, strlen(line));
    }
    const void *fact = "";
    size_t size = 1;
    tine_status status = tine_conn_origin(conn, (tine_fact)atoi(message), &fact, &size);
    if (status != TINE_OK)
        snprintf(line, sizeof line, "status=%d\n", (int)status);
    else if (!fact)
        snprintf(line, sizeof line, "none %zu\n", size);
    else if (size > 200)
        snprintf(line, sizeof line, "long\n");
    else
        snprintf(line, sizeof line, "%.*s\n", (int)size, (const char *)fact);
    return tine_conn_send(conn, line, strlen(line));
}

static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("opening: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

/* What is wrong is refused, and what is refused is not set. */
static void refusals(void)
{
    tine_listener *listener = tine_listener_tcp("127.0.0.1:0");
    if (tine_listener_set_proxy_protocol(listener, NULL) != TINE_ERROR_NULL ||
        tine_listener_add_certificate(listener, NULL, "key") != TINE_ERROR_NULL ||
        tine_listener_set_application_protocols(NULL, "h2") != TINE_ERROR_NULL)
        abort();
    tine_listener_free(listener);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    refusals();
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp("127.0.0.1:0");
    if (tine_listener_set_protocol(listener, "lines") || tine_listener_add_certificate(listener, argv[2], argv[3]) ||
        tine_listener_set_client_authorities(listener, argv[4], true) ||
        tine_listener_set_application_protocols(listener, "one,two") ||
        tine_listener_set_proxy_protocol(listener, "127.0.0.0/8,::1/128") ||
        tine_listener_set_opening_deadline(listener, 5000) || tine_server_add_listener(server, listener))
        abort();
    tine_server_set_workers(server, 2);
    if (strcmp(argv[1], "base") == 0)
        tine_server_set_mode(server, TINE_MODE_BASE);
    tine_server_on_start(server, on_start, NULL);
    tine_server_on_receive(server, on_receive);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "opening: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
