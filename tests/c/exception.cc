// A callback in C++ that is left by an exception.
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <tine.h>

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *)
{
    if (length >= 5 && std::memcmp(message, "throw", 5) == 0)
        throw std::runtime_error("thrown");
    return tine_conn_send(conn, message, length);
}

static void on_start(const tine_started *started, void *)
{
    std::printf("exception: listening on %s\n", started->addresses[0].text);
    std::fflush(stdout);
}

int main(int argc, char **argv)
{
    tine_server *server = tine_server_new();
    tine_server_listen(server, argc > 1 ? argv[1] : "127.0.0.1:0");
    tine_server_on_receive(server, on_receive);
    tine_server_on_start(server, on_start, nullptr);
    tine_status status = tine_server_run(server);
    tine_server_free(server);
    return status != TINE_OK;
}
