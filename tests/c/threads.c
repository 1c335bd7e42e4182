/* A server is refused while the process has threads. Once they are gone, a new one fails only at the next error. */
#include <pthread.h>
#include <stdio.h>
#include <tine.h>

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;

static void *wait_for_the_end(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&held);
    pthread_mutex_unlock(&held);
    return NULL;
}

static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    return tine_conn_send(conn, message, length);
}

int main(void)
{
    pthread_t thread;
    tine_server *server = tine_server_new();
    tine_server_listen(server, "127.0.0.1:0");
    tine_server_on_receive(server, on_receive);
    pthread_mutex_lock(&held);
    if (pthread_create(&thread, NULL, wait_for_the_end, NULL) != 0)
        return 2;
    tine_status status = tine_server_run(server);
    printf("%d: %s\n", (int)status, tine_last_error());
    pthread_mutex_unlock(&held);
    pthread_join(thread, NULL);
    tine_server_free(server);
    return status != TINE_ERROR_THREADS;
}
