/* Stands before the C library: while the file named by BAD_SYNC is there, no disk confirms anything. */

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int confirmed(long call, int fd)
{
    const char *flag = getenv("BAD_SYNC");
    if (flag != NULL && access(flag, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, fd);
}

int fsync(int fd)
{
    return confirmed(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return confirmed(SYS_fdatasync, fd);
}
