// tine.h: a pre-fork reactor server for Linux. Your code may block, leak or crash, and no client
// notices.
//
//     static tine_status on_receive(tine_conn conn, const void *message, size_t length, void *p)
//     {
//         return tine_conn_send(conn, message, length);
//     }
//
//     int main(void)
//     {
//         tine_server *server = tine_server_new();
//         tine_server_on_receive(server, on_receive);
//         tine_status status = tine_server_run(server);
//         if (status != TINE_OK)
//             fprintf(stderr, "%s\n", tine_last_error());
//         tine_server_free(server);
//         return status != TINE_OK;
//     }
//
//     cc echo.c $(pkg-config --cflags --libs tine)
//
// Which process calls what. tine_server_run() forks. In process mode the calling process becomes
// the master, which owns every socket and has threads (reactors); its child, the manager, forks the
// workers and replaces those that end. In base mode the calling process is the manager, and each
// worker owns its connections. Every type of a callback says which process calls it:
//
//   worker    worker_start, worker_seated, connect, receive, close, paused, resumed,
//             worker_stop: one at a time, in one thread. They may block, leak and crash. A
//             crash (abort, a NULL write, exit) is one more dead worker: it is logged, another
//             is started, and the crash policy decides what the client sees of it.
//   master    dispatch and crash functions, by several threads at once. In process mode also the
//             framing function, start and shutdown. A crash in them ends the server.
//   manager   manager_start, manager_stop, worker_exit; in base mode also start and shutdown. A
//             crash in them ends the server, a thread started in them keeps it from forking.
//   all       the log function, by any thread. A crash in it is one of the process that logs.
//
// What a fork means for your memory. Each worker has a copy of all memory as it was when it was
// forked, before the first client. What a pointer such as `userdata` points to is there in every
// process, at the same address, and is a copy: what one process writes, no other sees, and it is
// gone with the process. A worker that replaces another begins again with the copy from before the
// first client. What must be shared belongs into a database, a file, or memory that was mapped with
// MAP_SHARED before tine_server_run(). Descriptors are inherited, and shared with their offsets:
// open files and connections to databases in worker_start, not before. So are the buffers of
// stdio: fflush() what you have printed before tine_server_run(), or each process may print it
// again, and what a callback prints, or it is lost: workers and manager end by _exit(2).
//
// Rules. Pointers belong to who has made them, and are copied from where they are to be kept,
// unless it says otherwise. What a callback is given by a pointer is there until it returns, but
// for its `state` or `userdata`, which is yours. Texts are UTF-8 and end with a NUL. A pointer with
// a length points to so many bytes. A handle is of tine_server_new() and not freed; a userdata
// lives until tine_server_run() has returned. Where these are kept, no call crashes: what is NULL
// or out of range is refused with a status, and tine_last_error() says why. Results are written
// only where TINE_OK is returned. Setters that are refused need not be looked at one by one:
// tine_server_run() returns the first, also if a later call has set something better. Numbers and
// times out of their range are found there, too: it returns TINE_ERROR_SETTING. No time is longer than
// 366 days.
//
// How a callback may end. By returning. A C++ exception or pthread_exit(3) that leaves it ends the
// process as a crash does; a longjmp(3) out of it must not be. A process that it forks has no
// connections: it is to end by execve(2) or _exit(2), and does end where it would return from the
// callback. In base mode it keeps the clients' sockets open until then.
//
// Made from src/ffi by `make header`: not to be edited.


#ifndef TINE_H
#define TINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The version of this header; tine_version() is that of the library which runs.
#define TINE_VERSION "0.2.0"
#define TINE_VERSION_MAJOR 0
#define TINE_VERSION_MINOR 2
#define TINE_VERSION_PATCH 0
// Grows with the version: a byte for each of its parts.
#define TINE_VERSION_NUMBER (TINE_VERSION_MAJOR << 16 | TINE_VERSION_MINOR << 8 | TINE_VERSION_PATCH)

// As in <sys/socket.h>, for who looks into them.
struct sockaddr;
struct sockaddr_storage;

// No deadline at all, for tine_server_set_close_deadline().
#define TINE_NEVER UINT64_MAX

// Bytes that are enough for any text of tine_address_text().
#define TINE_ADDRESS_TEXT 64

// How a call went. The numbers are given out for good; later versions may add to them, so what is
// not known should be taken for a failure. tine_strerror() says in words what each means, and
// tine_last_error() what exactly went wrong.
//
// Callbacks return one too: TINE_OK, or anything else to say that they failed. That is logged,
// nothing of the callback's output is sent, and its connection has the fate that the crash policy
// gives a callback whose worker has died (tine_on_crash), though this worker lives on.
typedef enum {
  // It went well.
  TINE_OK = 0,
  // For callbacks of yours to return: they could not do their work. tine_fail() says why.
  TINE_ERROR_FAILED = 1,
  // A pointer is NULL that must not be. Nothing was done.
  TINE_ERROR_NULL = 2,
  // An argument is out of its range, or a text is not UTF-8. Nothing was done.
  TINE_ERROR_INVALID = 3,
  // This can be done once, and was: this server runs or has run, or one runs that this is a
  // process of; a log is set.
  TINE_ERROR_ALREADY = 4,
  // This can be done in a callback of a connection alone, by the thread that runs it.
  TINE_ERROR_OUTSIDE = 5,
  // This is known of the callback's own connection alone.
  TINE_ERROR_OTHER_CONN = 6,
  // In base mode: the connection is another worker's, out of reach.
  TINE_ERROR_OTHER_WORKER = 7,
  // One callback may not send so much: see tine_server_set_output_limit().
  TINE_ERROR_OVER_LIMIT = 8,
  // The memory given for a text is too small for it. Nothing was written.
  TINE_ERROR_TOO_SMALL = 9,
  // A bug in the library: it has panicked, and the panic was stopped at its edge.
  TINE_ERROR_PANIC = 10,
  // The server does not run: not yet, or not any more.
  TINE_ERROR_NOT_RUNNING = 11,
  // This can be done in the process that takes the server's signals alone: the master, in base mode
  // the manager.
  TINE_ERROR_WRONG_PROCESS = 12,
  // The server could not start: a setting has a value that can't be.
  TINE_ERROR_SETTING = 32,
  // The server could not start: the process has more threads than one. A fork copies the calling
  // thread alone, and the locks that others hold stay held.
  TINE_ERROR_THREADS = 33,
  // The server could not start: an address can't be listened on. tine_last_errno() says why.
  TINE_ERROR_LISTEN = 34,
  // The server could not start: too few open files are allowed, RLIMIT_NOFILE.
  TINE_ERROR_OPEN_FILES = 35,
  // The server could not start: no memory that the processes share.
  TINE_ERROR_SHARED_MEMORY = 36,
  // The server could not start: the pid file can't be written.
  TINE_ERROR_PID_FILE = 37,
  // The server could not start: a worker ended before it was ready.
  TINE_ERROR_WORKER_START = 38,
  // The server has ended: its workers kept dying, tine_server_set_fail_on_crash_loop().
  TINE_ERROR_CRASH_LOOP = 39,
  // The server has ended: its manager process was killed, or exited unexpectedly.
  TINE_ERROR_MANAGER_EXITED = 40,
  // The server could not start, or has ended: a system call failed. tine_last_errno() says how.
  TINE_ERROR_SYSTEM = 41,
} tine_status;

// An event of a connection, each with a callback.
typedef enum {
  // tine_server_on_connect()
  TINE_EVENT_CONNECT = 0,
  // tine_server_on_receive()
  TINE_EVENT_RECEIVE = 1,
  // tine_server_on_close()
  TINE_EVENT_CLOSE = 2,
  // tine_server_on_paused()
  TINE_EVENT_PAUSED = 3,
  // tine_server_on_resumed()
  TINE_EVENT_RESUMED = 4,
} tine_event;

// Who ended a connection.
typedef enum {
  // The peer sent FIN.
  TINE_CLOSE_PEER = 0,
  // The connection broke: the peer sent RST, or the network gave up.
  TINE_CLOSE_BROKEN = 1,
  // A callback closed or reset it.
  TINE_CLOSE_HANDLER = 2,
  // The server is shutting down.
  TINE_CLOSE_SHUTDOWN = 3,
  // The peer took its output too slowly.
  TINE_CLOSE_SLOW_READER = 4,
  // The peer's bytes are no message.
  TINE_CLOSE_REFUSED = 5,
  // A worker died in one of its callbacks, or one of them failed.
  TINE_CLOSE_CRASH = 6,
} tine_close_reason;

// Where the connections live.
typedef enum {
  // A master owns every socket, and workers run the callbacks: a worker's death or blocking is
  // not its clients'. The default.
  TINE_MODE_PROCESS = 0,
  // Each worker accepts and serves by itself: nothing between socket and callback, and nothing
  // that outlives a worker.
  TINE_MODE_BASE = 1,
} tine_mode;

// How much a log line matters.
typedef enum {
  // No line is as urgent: as a limit, it turns the log off.
  TINE_LOG_OFF = 0,
  // Something has failed.
  TINE_LOG_ERROR = 1,
  // Something is not as it should be: a worker has ended abnormally.
  TINE_LOG_WARN = 2,
  // What happens seldom, and is all right.
  TINE_LOG_INFO = 3,
  // For those who look for a fault.
  TINE_LOG_DEBUG = 4,
  // More of that.
  TINE_LOG_TRACE = 5,
} tine_log_level;

// Which byte of a length comes first.
typedef enum {
  // The most significant one, called network byte order.
  TINE_BIG_ENDIAN = 0,
  // The least significant one.
  TINE_LITTLE_ENDIAN = 1,
} tine_byte_order;

// What the number in a length counts.
typedef enum {
  // The bytes behind it.
  TINE_COUNTS_BODY = 0,
  // The whole message, itself included.
  TINE_COUNTS_ALL = 1,
} tine_counts;

// Which worker a connection's messages go to, in process mode. Whatever is chosen, the callbacks
// of one connection run in order, one at a time.
typedef enum {
  // The connection stays with the worker that had the fewest when it was accepted. The default.
  TINE_DISPATCH_LEAST_CONNECTIONS = 0,
  // Each message goes to the worker with the fewest messages, and none waits behind a callback
  // that blocks. What a callback wants to know of its connection's past must not be in the
  // worker's memory alone.
  TINE_DISPATCH_LEAST_BUSY = 1,
  // The connection stays with the worker whose turn it was when it was accepted.
  TINE_DISPATCH_ROUND_ROBIN = 2,
  // Connections from one IP address are one worker's.
  TINE_DISPATCH_CLIENT_ADDRESS = 3,
  // Connections that tine_conn_set_user() has associated with one user are one worker's.
  TINE_DISPATCH_USER_ID = 4,
} tine_dispatch;

// What is done about a callback that runs longer than its limit.
typedef enum {
  // The log says so, once a callback, with where the worker's stack stands.
  TINE_LIMIT_WARN = 0,
  // It says so, and the worker is killed; the crash policy decides what becomes of the message.
  TINE_LIMIT_KILL = 1,
} tine_limit_action;

// The fate of the callback under way when its worker dies, in process mode, and of a callback that
// fails, in both modes. A `close` in which a worker has died is run once more, but for
// TINE_ON_CRASH_KEEP, and its socket is closed at once. In base mode a worker's connections end with
// it, and TINE_ON_CRASH_REDELIVER and TINE_ON_CRASH_KEEP are refused.
typedef enum {
  // The connection is closed: the client learns at once. The default.
  TINE_ON_CRASH_CLOSE = 0,
  // The callback is run again, in another worker, until its attempts are used up.
  TINE_ON_CRASH_REDELIVER = 1,
  // A ready-made answer is sent, and the connection is closed.
  TINE_ON_CRASH_REPLY = 2,
  // Nothing: the client waits, and a connection that it closes stays in CLOSE_WAIT; for comparison.
  // A callback that fails closes its connection all the same.
  TINE_ON_CRASH_KEEP = 3,
} tine_on_crash;

// A listener to be. One thread at a time may use it.
typedef struct tine_listener tine_listener;

// A server to be: its settings and its callbacks. One thread at a time may use it.
typedef struct tine_server tine_server;

// Finds where the message ends that a connection's bytes begin with. Returns how many bytes it
// has, framing included, also when not all of them are there yet; 0 when that can't be told before
// more has come; anything below when these bytes can't become a message, which closes the
// connection. `bytes` is all that has come and belongs to no message yet, one byte or more, and
// may go on with the next message; at the first `seen` of them the function has looked before,
// without a whole message being there.
//
// Called where the socket is read. Process mode: in the master by any of its reactor threads, also
// by several at once: it must bear that, should be quick and must not block, and a crash in it
// ends the server. Base mode: in the worker.
typedef ptrdiff_t (*tine_framing_fn)(const void *bytes, size_t length, size_t seen, void *userdata);

// Names a listener of a server: its place in the order in which they were added, from 0.
typedef struct {
  // That place.
  uint32_t index;
} tine_listener_id;

// Names one connection of the server, in every process of it, for as long as it runs. It may be
// copied, kept, compared by its number, and given to other processes. It is never given to another
// connection: what is sent to one that is gone reaches nobody.
typedef struct {
  // Its number; never 0, which may stand for no connection.
  uint64_t id;
} tine_conn;

// What a dispatch function is asked about: the next callback of a connection. All of it is there
// until the function returns.
typedef struct {
  // The connection.
  tine_conn conn;
  // The client's address and port.
  const struct sockaddr *peer;
  // The listener that accepted it.
  tine_listener_id listener;
  // The user that tine_conn_set_user() has associated it with; NULL for none.
  const uint64_t *user;
  // The message, framing included; NULL if the callback is any other than `receive`.
  const void *message;
  // Bytes of the message.
  size_t length;
  // The seat that had its last callback, or the one with the fewest connections if it had none.
  size_t seat;
  // How many seats there are: `worker#0` up to one less.
  size_t seats;
} tine_route;

// Chooses the seat of a connection's next callback; a number past the last counts from the first
// one again. Process mode only. Called in the master by any of its reactor threads, also by
// several at once: it must bear that, should be quick and must not block. It is asked again about
// a callback that has had to wait. A crash in it ends the server.
typedef size_t (*tine_dispatch_fn)(const tine_route *route, void *userdata);

// A worker has died in a callback, or the callback has failed. All of it is there until the function
// returns.
typedef struct {
  // The connection of the callback.
  tine_conn conn;
  // The client's address and port.
  const struct sockaddr *peer;
  // The listener that accepted it.
  tine_listener_id listener;
  // The user that tine_conn_set_user() has associated it with; NULL for none.
  const uint64_t *user;
  // The event whose callback it was.
  tine_event event;
  // How often it was run, this time included.
  uint8_t attempts;
  // It has returned another status than TINE_OK, and its worker lives.
  bool failed;
  // Part of its output has left already, by tine_flush(): it can't be run again.
  bool flushed;
  // The message, if it was `receive`; NULL otherwise.
  const void *message;
  // Bytes of the message.
  size_t length;
} tine_crash;

// What a crash function decides.
typedef struct {
  // TINE_ON_CRASH_CLOSE, unless the function says otherwise. What is no tine_on_crash is logged
  // and closes.
  tine_on_crash on_crash;
  // With TINE_ON_CRASH_REDELIVER: how many workers this callback may kill, 1 to 255. It is 3
  // already.
  uint32_t attempts;
  // With TINE_ON_CRASH_REPLY: what is sent, a byte at least. It belongs to the function's owner
  // and is copied when the function has returned.
  const void *reply;
  // Bytes of the reply.
  size_t reply_length;
} tine_fate;

// Decides the fate of a callback in which a worker has died, by writing to `fate`. Process mode
// only. Called in the master by any of its reactor threads, also by several at once: it must bear
// that, and must not block. A crash in it ends the server.
typedef void (*tine_crash_fn)(const tine_crash *crash, tine_fate *fate, void *userdata);

// Which worker this is.
typedef struct {
  // Its seat: the N of `worker#N`, from 0. The next process in the seat has the same. -1 for one
  // that stands by.
  int64_t seat;
  // Which process of the server's workers it is, from 1: no two have the same.
  uint32_t generation;
} tine_worker;

// Worker: it has started and serves nobody yet. `*state` is the pointer of
// tine_server_set_userdata(); what the callback puts there instead is what the other callbacks of
// this worker are given: a place for a database handle, say. See tine_server_on_worker_start().
typedef tine_status (*tine_worker_start_fn)(const tine_worker *worker, void **state);

// Worker: one that stood by takes a seat, before its first callback for a connection.
typedef tine_status (*tine_worker_seated_fn)(const tine_worker *worker, void *state);

// Worker: something has happened to a connection that needs no more words.
typedef tine_status (*tine_conn_fn)(tine_conn conn, void *state);

// Worker: a message of `length` bytes has come, one at least, framing included. It belongs to the
// library and is there until the callback returns.
typedef tine_status (*tine_receive_fn)(tine_conn conn,
                                       const void *message,
                                       size_t length,
                                       void *state);

// How a connection ended.
typedef struct {
  // Who ended it.
  tine_close_reason reason;
  // The close deadline passed before a worker was free for this callback: the server has closed
  // the socket already.
  bool past_deadline;
  // This callback has been begun before: its worker has died in it, or it has failed.
  bool retried;
} tine_closed;

// Worker: a connection has ended.
typedef tine_status (*tine_close_fn)(tine_conn conn, const tine_closed *closed, void *state);

// Worker: it is asked to end, after its last callback for a connection.
typedef void (*tine_worker_stop_fn)(void *state);

// An address that a server listens on: one of a listener's.
typedef struct {
  // The address, with the real port: "127.0.0.1:9501".
  const char *text;
  // The name of the listener that it belongs to.
  const char *name;
  // That listener.
  tine_listener_id listener;
} tine_endpoint;

// A server that has started. All of it is there until the callback returns.
typedef struct {
  // Every address that it listens on, in the order in which the listeners were added.
  const tine_endpoint *addresses;
  // How many addresses.
  size_t addresses_length;
  // Where the connections live.
  tine_mode mode;
  // How many workers it has.
  size_t workers;
  // How many reactors; 0 in base mode.
  size_t reactors;
  // The process to send signals to: the master, in base mode the manager.
  int32_t pid;
} tine_started;

// Master (base mode: manager): the server has started.
typedef void (*tine_start_fn)(const tine_started *started, void *userdata);

// Master or manager: something has happened that needs no more words.
typedef void (*tine_server_fn)(void *userdata);

// How a worker ended.
typedef struct {
  // Its seat: the N of `worker#N`; -1 for one that stood by.
  int64_t seat;
  // The process that ended.
  int32_t pid;
  // Its exit status, 0 if a signal ended it.
  int32_t status;
  // The signal that ended it, or 0.
  int32_t signal;
  // It ended although it was not asked to, or otherwise than it was asked to.
  bool abnormal;
} tine_worker_exit;

// Manager: a worker has ended.
typedef void (*tine_worker_exit_fn)(const tine_worker_exit *exit, void *userdata);

// Figures of the running server, as a worker sees them.
typedef struct {
  // The seat of the worker that asks: the N of `worker#N`.
  int64_t seat;
  // Which process of the server's workers it is, from 1: no two have the same.
  uint32_t generation;
  // Callbacks that this worker process has finished.
  uint64_t callbacks;
  // Connections open now: of the whole server in process mode, of this worker in base mode.
  uint64_t connections;
  // Connections accepted since the start, counted likewise.
  uint64_t accepted;
  // Callbacks that have used up their attempts. 0 in base mode.
  uint64_t poisoned;
} tine_stats;

// A line of the log. All of it is there until the function returns.
typedef struct {
  // How much it matters.
  tine_log_level level;
  // Which of the server's processes says it: "master", "manager", "worker#0", "standby"; "tine"
  // before the server has started.
  const char *role;
  // That process.
  int32_t pid;
  // What it says, without a newline at the end. There may be some within.
  const char *text;
} tine_log_line;

// Takes a line of the log. Called in every process of the server, in the master by any of its
// threads, also by several at once: it must bear that. It must not wait for anything, since the
// server waits for it. What it says itself by tine_log() is dropped.
typedef void (*tine_log_fn)(const tine_log_line *line, void *userdata);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// ---- A server's life ----

// Makes a server with default settings: process mode, 127.0.0.1:9501, as many workers as the
// machine has cores, half as many reactors. It takes nothing from the system yet. To be freed with
// tine_server_free(). Never NULL.
tine_server *tine_server_new(void);

// Frees a server, whether it has run or not; NULL is fine. What was given to it as `userdata` is
// the program's own to free. Not while it runs.
void tine_server_free(tine_server *server);

// Adds a raw listener with the default limits, on an address: "127.0.0.1:9501", "[::1]:9501",
// "localhost:9501" (on every address that the name stands for). May be called again for more; port 0
// lets the kernel choose one, which tine_started tells. A server without any listener listens on
// 127.0.0.1:9501. The address is looked at by tine_server_run(). tine_listener_tcp() makes a listener
// with a protocol and limits of its own.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_listen(tine_server *server,
                               const char *address);

// Runs the server until SIGTERM or SIGINT has ended it, and returns then; a server can be run
// once. Must be called while the process has one thread, and in no callback: it forks. The calling
// process becomes the master, in base mode the manager; the workers are children of a child, end
// in there, and never return from this function.
//
// Signals of the calling process are the server's from here on, also after it has returned: TERM
// and INT end it gracefully, a second INT by force, USR1 replaces the workers one at a time, HUP
// and PIPE do nothing. When it has returned, none of them does anything, until signal(2) with
// SIG_DFL gives them back.
//
// Errors: TINE_ERROR_NULL. TINE_ERROR_INVALID for a server without a `receive` callback, and whatever a setter
// has refused before, as it said then. TINE_ERROR_ALREADY, also in a callback. All those from
// TINE_ERROR_SETTING on. Whatever it returns, nothing of it is left running.
tine_status tine_server_run(tine_server *server);

// Ends a server that runs gracefully, as SIGTERM does. Returns at once. Master (base mode: manager):
// any thread, while tine_server_run() runs. A callback of a connection has tine_stop() for that.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_NOT_RUNNING, TINE_ERROR_WRONG_PROCESS.
tine_status tine_server_stop(const tine_server *server);

// Replaces the workers of a server that runs, one at a time, as SIGUSR1 does. Returns at once.
// Master (base mode: manager): any thread, while tine_server_run() runs. A callback of a connection
// has tine_reload() for that.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_NOT_RUNNING, TINE_ERROR_WRONG_PROCESS.
tine_status tine_server_reload(const tine_server *server);

// ---- Listeners, before tine_server_run() ----

// Makes a listener for TCP: raw, with the default limits. `address` is as for tine_server_listen().
// To be given to tine_server_add_listener(), or else freed with tine_listener_free(). Never NULL: a
// wrong address is refused where it is added.
tine_listener *tine_listener_tcp(const char *address);

// Frees a listener that was not added to a server; NULL is fine.
void tine_listener_free(tine_listener *listener);

// Adds a listener to a server. The listener is the server's from here on, whatever this returns,
// and must not be used again.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY, and the first that a setter of the listener has
// returned.
tine_status tine_server_add_listener(tine_server *server, tine_listener *listener);

// How logs, tine_started and tine_listener_name() call it, in place of its address. No two listeners
// of a server may have the same name.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_name(tine_listener *listener,
                                   const char *name);

// How bytes become messages, as a text: "raw" (whatever has been read; the default),
// "delimiter=TEXT" where \r \n \t \0 \\ and \xHH stand for a byte,
// "length=1|2|4[,big|little][,body|all]". What the three functions below say in C.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_protocol(tine_listener *listener, const char *protocol);

// A message ends with these bytes, 1 to 64, "\r\n" say. They are copied.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_delimiter(tine_listener *listener,
                                        const void *delimiter,
                                        size_t length);

// A message begins with its length, an unsigned number of `width` bytes: 1 to 8.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID.
tine_status tine_listener_set_length_prefix(tine_listener *listener,
                                            size_t width,
                                            tine_byte_order order,
                                            tine_counts counts);

// A function finds where messages end. Wherever a delimiter or a length prefix says the same,
// they are the safer choice.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_framing_fn(tine_listener *listener,
                                         tine_framing_fn function,
                                         void *userdata);

// The longest message that is accepted, in bytes, framing included, 1 byte to 1 GiB. A raw message
// is at most 256 KiB besides, and shorter under a small output limit, so that it can be echoed.
// Default: 8 MiB. Where messages are cut, each link of a reactor and a worker has memory for at
// least one of the longest.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_max_message(tine_listener *listener, size_t bytes);

// The most connections that wait in the kernel to be accepted, listen(2), 0 to INT_MAX. The kernel
// allows at most net.core.somaxconn; the log says so. Default: 4096.
//
// Errors: TINE_ERROR_NULL.
tine_status tine_listener_set_backlog(tine_listener *listener, uint32_t connections);

// The name of a listener, as a text with its NUL: the one that it was given, or its address. `text`
// is `size` bytes.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a listener that the server has not,
// TINE_ERROR_TOO_SMALL, TINE_ERROR_OUTSIDE.
tine_status tine_listener_name(tine_listener_id listener, char *text, size_t size);

// ---- Settings, before tine_server_run() ----

// Where the connections live. Default: TINE_MODE_PROCESS.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_mode(tine_server *server, tine_mode mode);

// How many worker processes, 1 to 511. Default: the cores of the machine.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_workers(tine_server *server, size_t workers);

// The number of workers that are started beside those that serve, and wait with `worker_start` run:
// the seat of one that dies is handed to them at once. 0 to 511. Default: 0.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_standby(tine_server *server, size_t workers);

// How many reactor threads the master has, 1 to 1023. Base mode has none. Default: half the
// cores, at least 1.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_reactors(tine_server *server, size_t reactors);

// How many connections may be open at once, 1 to 4,194,304: in process mode in all, in base mode
// in each worker. More wait in the kernel. Default: 65,536, or as many as the limit of open files
// allows.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_max_connections(tine_server *server, size_t connections);

// Which worker a connection's messages go to, in process mode. Default:
// TINE_DISPATCH_LEAST_CONNECTIONS.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_dispatch(tine_server *server, tine_dispatch mode);

// A function chooses the seat of each callback, in process mode, in place of
// tine_server_set_dispatch(). Callbacks of one connection
// stay in order: one that goes elsewhere waits for those before it. A connection that it sends
// to an empty seat waits for the next worker there.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_dispatch_fn(tine_server *server,
                                        tine_dispatch_fn function,
                                        void *userdata);

// When a worker dies in a callback, its connection is closed after what was sent to it before:
// the client learns at once. The default. This and the next three are one setting, of which the
// last call counts; a function set by tine_server_set_crash_fn() is asked in place of it. See
// tine_on_crash for what all have in common.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_close(tine_server *server);

// When a worker dies in a callback, the callback is run again in another worker, until it has
// killed `attempts` of them, 1 to 255; then its message is logged and its connection closed. So
// is the connection of a callback that has called tine_flush().
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_redeliver(tine_server *server, uint32_t attempts);

// When a worker dies in a callback, these bytes are sent, and the connection is closed: a ready-
// made "502 Bad Gateway", say. They are copied. After a tine_flush() the connection is only
// closed.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_reply(tine_server *server, const void *reply, size_t length);

// When a worker dies in a callback, nothing is done: the client waits, and a connection that it
// closes stays in CLOSE_WAIT. What other servers do; here it is for seeing what comes of it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_keep(tine_server *server);

// A function decides the fate of each callback in which a worker has died.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_crash_fn(tine_server *server, tine_crash_fn function, void *userdata);

// How many milliseconds a callback may run, 1 or more, and what is done then. Time in which the
// worker is stopped or the machine sleeps does not count. Default: no limit.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_server_set_callback_limit(tine_server *server,
                                           uint64_t milliseconds,
                                           tine_limit_action action);

// Recycles a worker after this many messages, plus up to 25 % so that workers are not all recycled at
// once: one seat at a time, the new worker first. 1 or more. Default: never.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_max_requests(tine_server *server,
                                         uint64_t messages);

// Recycles a worker that has more than this many bytes of private memory, and kills one that has
// twice as many. At least 1 MiB. Default: no limit.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_worker_memory(tine_server *server, uint64_t bytes);

// Ends the server with TINE_ERROR_CRASH_LOOP when for so many milliseconds every worker has died young
// without having served anybody. Default: it goes on trying.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_fail_on_crash_loop(tine_server *server,
                                               uint64_t milliseconds);

// How many milliseconds after the peer's FIN, or after the last byte that it took since, the
// socket is closed whatever the worker does. With TINE_NEVER the socket may stay in CLOSE_WAIT
// for good. Default: 5,000.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_close_deadline(tine_server *server, uint64_t milliseconds);

// How many milliseconds a server that was asked to end, or a worker that is replaced, may take
// to finish what it has begun. Default: 10,000.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_shutdown_deadline(tine_server *server, uint64_t milliseconds);

// Writes the pid of the process that takes the signals (the master, in base mode the manager) to
// a file, whole or not at all, and removes it at the end. Default: no file.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_pid_file(tine_server *server, const char *path);

// High-water mark: reading from a connection pauses while more than this many of its bytes are
// unsent, and resumes at half of it; `paused` and `resumed` tell the worker. 1 up to the output
// limit, at most 8 GiB. Default: 1 MiB.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_output_high_water(tine_server *server, size_t bytes);

// With more bytes than this unsent, a connection is closed as a slow reader; and one callback
// can send no more (TINE_ERROR_OVER_LIMIT). Each tine_conn_send() counts 64 bytes besides, and more than
// 128 KiB count as several. At least the high-water mark, at most 16 GiB. Default: the high-water
// mark and what one inbox holds, at least 16 MiB.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_output_limit(tine_server *server,
                                         size_t bytes);

// How many bytes the process that owns the sockets may hold for all its connections: unsent
// output, and messages that are not complete. Past it, the connections that hold most are
// closed. At least the output limit (and the longest message, where messages are cut) for each
// reactor. Default: twice that, at least 256 MiB.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_memory_budget(tine_server *server, size_t bytes);

// ---- Callbacks of the workers, before tine_server_run() ----

// A pointer for the callbacks of the workers: what they are given as `state`, until `worker_start`
// puts something else in its place, in its worker. Each worker has its own copy of all memory as
// it was when it was forked: what is behind the pointer is a copy, and what one worker changes
// there, no other process sees. Default: NULL.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_set_userdata(tine_server *server, void *userdata);

// Worker: a function that prepares it, for what each worker has of its own: a database handle, a
// random seed. It may block. If it fails, the worker does not start, and while the server
// starts, that ends the server. In a server that runs already, one that takes longer than a
// minute, than the shutdown deadline, and than twice what any worker has taken so far, is killed
// and tried again.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_worker_start(tine_server *server, tine_worker_start_fn function);

// Worker: a function for one that stood by and takes the seat of one that has died, before its
// first callback for a connection; `worker_start` has run already, when the seat was not known.
// If it fails, the worker ends, as by a crash.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_worker_seated(tine_server *server, tine_worker_seated_fn function);

// Worker: a function for a client that has connected. Where
// callbacks are delivered again (tine_server_set_crash_redeliver()), it may run twice for a
// connection; and `close` follows for a connection whose `connect` has killed its last worker.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_connect(tine_server *server, tine_conn_fn function);

// Worker: the function for a message, the one callback that a server must have.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_receive(tine_server *server, tine_receive_fn function);

// Worker: a function for a connection that has ended, the last callback for it. What is sent
// there still reaches a peer that closed only its writing side.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_close(tine_server *server, tine_close_fn function);

// Worker: a function for a connection from which the server has stopped reading, since its peer reads
// too slowly: see tine_server_set_output_high_water().
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_paused(tine_server *server,
                                  tine_conn_fn function);

// Worker: a function for the end of that: half of the output is sent, and the server reads from the
// connection again.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_resumed(tine_server *server, tine_conn_fn function);

// Worker: a function that ends what `worker_start` began, when the worker is asked to end. Not
// called when it crashes. After it, the worker ends by _exit(2): what atexit(3) was told belongs
// to the process that has forked it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_worker_stop(tine_server *server, tine_worker_stop_fn function);

// ---- Callbacks of master and manager, before tine_server_run() ----

// Master (base mode: manager): a function that is called once every worker is ready. In the
// master it may start threads, in the manager it must not. Nothing is accepted and no signal
// acted upon before it returns.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_start(tine_server *server, tine_start_fn function, void *userdata);

// Master (base mode: manager): a function that is called after an orderly end, when every worker
// has ended.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_shutdown(tine_server *server, tine_server_fn function, void *userdata);

// Manager: a function that is called before the first worker is forked. It must start no thread.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_manager_start(tine_server *server,
                                         tine_server_fn function,
                                         void *userdata);

// Manager: a function that is called when the last worker has left.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_manager_stop(tine_server *server,
                                        tine_server_fn function,
                                        void *userdata);

// Manager: a function that is called when a worker has ended, however it did, after its log line and
// when its seat was seen to. No worker is forked or reaped before it returns, and it must start
// no thread.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_ALREADY.
tine_status tine_server_on_worker_exit(tine_server *server,
                                       tine_worker_exit_fn function,
                                       void *userdata);

// ---- What a callback of a connection can do ----

// Sends `length` bytes to a connection: the callback's own or any other of the server (in base
// mode: of this worker). They are taken whole or not at all, and are the caller's again when it
// returns. A connection that is gone takes them and drops them.
//
// Nothing leaves before the callback returns TINE_OK or tine_flush() is called: a callback that fails
// before that, or whose worker dies, has sent nothing. The bytes are copied once, but for those of the
// message that the callback was given: any part of it, to any connection of the same reactor, is sent
// from where it lies. It never waits for the client. There is no order between what callbacks of different connections
// send to the same one.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OVER_LIMIT, TINE_ERROR_OTHER_WORKER.
tine_status tine_conn_send(tine_conn conn,
                           const void *message,
                           size_t length);

// Closes a connection after what was sent to it: FIN, once the peer has taken everything. Messages
// of it that are still on their way are dropped, and its `close` is called.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER.
tine_status tine_conn_close(tine_conn conn);

// Closes a connection at once, with RST: what was not sent yet is dropped, and its `close` is
// called.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER.
tine_status tine_conn_reset(tine_conn conn);

// Associates a connection with a user: any number that stands for a user, an account, a tenant. With
// TINE_DISPATCH_USER_ID all connections of one user are one worker's, from the next message on; a
// dispatch function is told. Base mode: nothing happens, a connection stays where it was accepted.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_WORKER.
tine_status tine_conn_set_user(tine_conn conn,
                               uint64_t user);

// The client's address and port, of the callback's own connection: written to `peer`.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_peer(tine_conn conn, struct sockaddr_storage *peer);

// The listener that accepted the callback's own connection: written to `listener`.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_listener(tine_conn conn, tine_listener_id *listener);

// How many workers have begun this callback, with this message, before, and died in it: written to
// `attempt`. 0 but under TINE_ON_CRASH_REDELIVER.
//
// In a callback of this connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID, TINE_ERROR_OUTSIDE, TINE_ERROR_OTHER_CONN.
tine_status tine_conn_attempt(tine_conn conn, uint8_t *attempt);

// Commits the output of this callback so far: it leaves now. From here on its message can't be run
// again: if the worker dies in this callback, or the callback fails, the connection is closed. A
// callback that sends more than it may at
// once can flush in between.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_OUTSIDE.
tine_status tine_flush(void);

// Ends the server gracefully, as SIGTERM does, once this callback has returned TINE_OK or called
// tine_flush(); not at all if it fails or its worker dies before.
//
// In a callback of a connection, by the thread that runs it. See tine_server_stop() for others.
//
// Errors: TINE_ERROR_OUTSIDE.
tine_status tine_stop(void);

// Replaces the workers one at a time, as SIGUSR1 does, once this callback has returned TINE_OK or
// called tine_flush(); not at all if it fails or its worker dies before.
//
// In a callback of a connection, by the thread that runs it. See tine_server_reload() for others.
//
// Errors: TINE_ERROR_OUTSIDE.
tine_status tine_reload(void);

// Figures of the running server, written to `stats`, of which the caller has `size` bytes: give
// `sizeof *stats`, so that a program goes on working when later versions know more figures.
//
// In a callback of a connection, by the thread that runs it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a size that is no version's, TINE_ERROR_OUTSIDE.
tine_status tine_stats_read(tine_stats *stats, size_t size);

// ---- Addresses ----

// An address as a text with its NUL: "127.0.0.1:9501" or "[::1]:9501". `address` is an IPv4 or an
// IPv6 address; `text` is `size` bytes, of which TINE_ADDRESS_TEXT are always enough. Any thread
// of any process may call it.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for another family, TINE_ERROR_TOO_SMALL.
tine_status tine_address_text(const struct sockaddr *address, char *text, size_t size);

// ---- Log ----

// Says where log lines go: those up to `level`, to `function`, or, if that is NULL, to standard
// error with time, level, role and pid, where a line is dropped rather than waited for. A program
// that does not call it has TINE_LOG_INFO on standard error, from tine_server_run() on.
//
// Once a process, before tine_server_run(). `userdata` is passed to the function until the process
// ends, also after tine_server_run() has returned.
//
// Errors: TINE_ERROR_INVALID, TINE_ERROR_ALREADY.
tine_status tine_log_to(tine_log_level level, tine_log_fn function, void *userdata);

// Writes a line to the server's log, with the role and the pid of the calling process. Any thread
// of any process may call it. What is not UTF-8 in it is shown as such: a text may be cut
// anywhere.
//
// Errors: TINE_ERROR_NULL, TINE_ERROR_INVALID for a level.
tine_status tine_log(tine_log_level level, const char *message);

// ---- What went wrong, and versions ----

// What a status means, in a few English words. Never NULL; the text is there for good. Any thread
// of any process may ask.
const char *tine_strerror(tine_status status);

// What exactly went wrong in the last call of this thread that failed: which setting, what is
// wrong with it, what to do. Empty if none has failed; never NULL. A call that goes well does not
// change it. The text belongs to the library, and is there until the next call of this thread that
// fails.
const char *tine_last_error(void);

// For callbacks: says why they fail, for the log line of that, and returns TINE_ERROR_FAILED, so that
// one can write `return tine_fail("no such user")`. The text is copied, and becomes
// tine_last_error(). Any thread of any process may call it.
//
// Errors: TINE_ERROR_NULL. It never returns TINE_OK.
tine_status tine_fail(const char *why);

// The errno(3) behind the last failure of this thread: EADDRINUSE, say. 0 if it was none of the
// kernel's.
int tine_last_errno(void);

// The version of the library that runs: "0.1.0", say. TINE_VERSION is that of the header which the
// program was compiled with. Never NULL; the text is there for good. Any thread of any process may
// ask.
const char *tine_version(void);

// The version of the library that runs as a number that grows, to be compared with
// TINE_VERSION_NUMBER: 0x000100 for 0.1.0, with a byte for each of its parts.
uint32_t tine_version_number(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TINE_H */
