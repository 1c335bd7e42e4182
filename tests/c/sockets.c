/* A listener on a unix socket, with permissions, and one of TCP with rules: each client is told who it is. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <tine.h>

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)message, (void)length, (void)state;
    struct sockaddr_storage peer;
    tine_credentials who = {77, 77, 77};
    char text[TINE_ADDRESS_TEXT], answer[256];
    if (tine_conn_peer(conn, &peer) || tine_address_text((struct sockaddr *)&peer, text, sizeof text))
        return TINE_ERROR_FAILED;
    tine_status found = tine_address_credentials((struct sockaddr *)&peer, &who);
    snprintf(answer, sizeof answer, "%s unix=%d status=%d pid=%u uid=%u gid=%u\n", text, peer.ss_family == AF_UNIX,
             (int)found, who.pid, who.uid, who.gid);
    return tine_conn_send(conn, answer, strlen(answer));
}

static size_t choose(const tine_route *route, void *userdata)
{
    (void)userdata;
    tine_credentials who;
    return tine_address_credentials(route->peer, &who) == TINE_OK ? 1 : 0;
}

static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    for (size_t i = 0; i < started->addresses_length; i++)
        printf("sockets: listening on %s\n", started->addresses[i].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    tine_server *server = tine_server_new();
    tine_listener *tcp = tine_listener_tcp("[::1]:0"), *local = tine_listener_unix(argv[1]);
    tine_listener_set_v6only(tcp, true);
    tine_listener_allow(tcp, "::1/128");
    tine_listener_deny(tcp, "2001:db8::/32");
    tine_listener_set_max_new_per_second(tcp, 1000);
    tine_listener_set_address_prefix(tcp, 24, 48);
    tine_listener_set_receive_buffer(tcp, 65536);
    tine_listener_set_mode(local, 0640);
    tine_listener_set_send_buffer(local, 65536);
    tine_server_add_listener(server, tcp);
    tine_server_add_listener(server, local);
    tine_server_set_workers(server, 2);
    tine_server_set_dispatch_fn(server, choose, NULL);
    tine_server_on_start(server, on_start, NULL);
    tine_server_on_receive(server, on_receive);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "%s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
