"""An echo server in Python, on the C ABI: echo.py LIBRARY ADDRESS:PORT"""

import ctypes
import sys


class Conn(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint64)]


class Endpoint(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("name", ctypes.c_char_p), ("listener", ctypes.c_uint32)]


class Started(ctypes.Structure):
    _fields_ = [("addresses", ctypes.POINTER(Endpoint))]


tine = ctypes.CDLL(sys.argv[1])
tine.tine_server_new.restype = ctypes.c_void_p
tine.tine_last_error.restype = ctypes.c_char_p
Receive = ctypes.CFUNCTYPE(ctypes.c_int, Conn, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
Start = ctypes.CFUNCTYPE(None, ctypes.POINTER(Started), ctypes.c_void_p)


@Receive
def on_receive(conn, message, length, state):
    return tine.tine_conn_send(conn, ctypes.c_char_p(ctypes.string_at(message, length)), ctypes.c_size_t(length))


@Start
def on_start(started, userdata):
    print("echo: listening on", started.contents.addresses[0].text.decode(), flush=True)


server = ctypes.c_void_p(tine.tine_server_new())
tine.tine_server_listen(server, sys.argv[2].encode())
tine.tine_server_on_receive(server, on_receive)
tine.tine_server_on_start(server, on_start, None)
status = tine.tine_server_run(server)
if status:
    print(tine.tine_last_error().decode(), file=sys.stderr)
tine.tine_server_free(server)
sys.exit(status)
