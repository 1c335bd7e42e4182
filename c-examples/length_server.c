/* A binary protocol: requests and answers that begin with their length.
 *
 *     length_server [ADDRESS:PORT]        default 127.0.0.1:9501; port 0 picks a free one
 *
 *     request    length (4 bytes), operation (1 byte), operand
 *     answer     length (4 bytes), 0 for done or 1 for a bad request (1 byte), result
 *
 * Operation 1 adds the numbers of 4 bytes in the operand to one of 8 bytes. Operation 2 reverses the bytes of the
 * operand. Lengths count the bytes after them; every number is unsigned, most significant byte first.
 *
 * The server cuts the stream into messages, however TCP has delivered it. A message longer than LONGEST is refused by
 * its length, before the rest has come: its connection is closed.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <tine.h>

enum { PREFIX = 4, LONGEST = 4096, ADD_UP = 1, TURN_ROUND = 2, DONE = 0, BAD_REQUEST = 1 };

/* Reads a number byte by byte. Casting the pointer to uint32_t * would be wrong: message + 5 is not aligned to 4. */
static uint64_t number_at(const unsigned char *bytes, size_t width)
{
    uint64_t number = 0;
    for (size_t i = 0; i < width; i++)
        number = number << 8 | bytes[i];
    return number;
}

static void put_number(unsigned char *bytes, uint64_t number, size_t width)
{
    for (size_t i = 0; i < width; i++)
        bytes[i] = (unsigned char)(number >> 8 * (width - 1 - i));
}

static tine_status answer(tine_conn conn, unsigned char outcome, const unsigned char *result, size_t length)
{
    unsigned char bytes[PREFIX + 1 + LONGEST];
    put_number(bytes, 1 + length, PREFIX);
    bytes[PREFIX] = outcome;
    if (length > 0)
        memcpy(bytes + PREFIX + 1, result, length);
    return tine_conn_send(conn, bytes, PREFIX + 1 + length);
}

static tine_status add_up(tine_conn conn, const unsigned char *operand, size_t length)
{
    if (length % 4 != 0)
        return answer(conn, BAD_REQUEST, NULL, 0);
    uint64_t sum = 0; /* room for 2^32 numbers */
    for (size_t i = 0; i < length; i += 4)
        sum += number_at(operand + i, 4);
    unsigned char result[8];
    put_number(result, sum, sizeof result);
    return answer(conn, DONE, result, sizeof result);
}

static tine_status turn_round(tine_conn conn, const unsigned char *operand, size_t length)
{
    unsigned char result[LONGEST];
    for (size_t i = 0; i < length; i++)
        result[i] = operand[length - 1 - i];
    return answer(conn, DONE, result, length);
}

/* Runs in a worker, for each message: complete, with its prefix, and not longer than LONGEST. The bytes after the
 * prefix are unchecked, and may be missing.
 */
static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *state)
{
    (void)state;
    const unsigned char *bytes = message;
    if (length < PREFIX + 1)
        return answer(conn, BAD_REQUEST, NULL, 0);
    const unsigned char *operand = bytes + PREFIX + 1;
    switch (bytes[PREFIX]) {
    case ADD_UP:
        return add_up(conn, operand, length - PREFIX - 1);
    case TURN_ROUND:
        return turn_round(conn, operand, length - PREFIX - 1);
    default:
        return answer(conn, BAD_REQUEST, NULL, 0);
    }
}

/* Runs in a worker, when a connection has ended. */
static tine_status on_close(tine_conn conn, const tine_closed *closed, void *state)
{
    (void)conn, (void)state;
    if (closed->reason == TINE_CLOSE_REFUSED)
        tine_log(TINE_LOG_INFO, "a client was refused: its message is too long");
    return TINE_OK;
}

/* Runs in the master, once every worker is ready. */
static void on_start(const tine_started *started, void *userdata)
{
    (void)userdata;
    printf("length_server: listening on %s\n", started->addresses[0].text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    tine_server *server = tine_server_new();
    tine_listener *listener = tine_listener_tcp(argc > 1 ? argv[1] : "127.0.0.1:9501");
    tine_listener_set_length_prefix(listener, PREFIX, TINE_BIG_ENDIAN, TINE_COUNTS_BODY);
    tine_listener_set_max_message(listener, LONGEST);
    tine_server_add_listener(server, listener);
    tine_server_on_receive(server, on_receive);
    tine_server_on_close(server, on_close);
    tine_server_on_start(server, on_start, NULL);
    tine_status status = tine_server_run(server);
    if (status != TINE_OK)
        fprintf(stderr, "length_server: %s\n", tine_last_error());
    tine_server_free(server);
    return status != TINE_OK;
}
