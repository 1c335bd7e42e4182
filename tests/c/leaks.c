/* Linked into a program under AddressSanitizer: looks for leaks in every process at its end, also in those that a
 * server forks. These end by _exit(2), without the check of exit(3).
 */
/* A C++ compiler defines it itself. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sanitizer/lsan_interface.h>
#include <sys/syscall.h>
#include <unistd.h>

void _exit(int status)
{
    if (status == 0 && __lsan_do_recoverable_leak_check() != 0)
        status = 23;
    for (;;)
        syscall(SYS_exit_group, status);
}
