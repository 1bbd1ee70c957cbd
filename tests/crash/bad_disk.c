/* Preloaded before the C library: simulates a failing disk and the Linux kernel above it.
 *
 * The test puts files into the folder BAD_DISK. While `database` or `wal` is there, the blocks of that file cannot be
 * written. As in Linux, the write itself succeeds and the loss is reported at a sync: that fails once with EIO, the
 * pages are dropped, reads return what the disk had before, and the next sync succeeds. While `refuse` is there,
 * writes to the database fail at once; while `unreadable` is there, reads of it fail; while `nolinks` is there, no hard
 * links can be made.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BLOCK 4096
#define BLOCKS (1 << 16)

struct file {
    const char *flag;
    const char *ending;
    char path[1024];
    char *before[BLOCKS]; /* the content on the disk of a block that is not synced */
    char lost[BLOCKS];
    int losses;
};

static struct file files[] = {{.flag = "database", .ending = ".sqlite3"}, {.flag = "wal", .ending = ".sqlite3-wal"}};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int is_set(const char *flag)
{
    char name[1024];
    const char *folder = getenv("BAD_DISK");
    if (folder == NULL)
        return 0;
    snprintf(name, sizeof name, "%s/%s", folder, flag);
    return access(name, F_OK) == 0;
}

static struct file *file_of(int fd)
{
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return NULL;
    path[length] = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        size_t ending = strlen(files[i].ending);
        if ((size_t)length > ending && strcmp(path + length - ending, files[i].ending) == 0) {
            strcpy(files[i].path, path);
            return &files[i];
        }
    }
    return NULL;
}

/* Saves the content on the disk before a block changes. */
static void keep(struct file *file, int fd, off_t at, size_t count)
{
    int bad = is_set(file->flag);
    for (off_t block = at / BLOCK; count > 0 && block <= (off_t)((at + count - 1) / BLOCK) && block < BLOCKS; block++) {
        if (file->before[block] == NULL) {
            file->before[block] = calloc(1, BLOCK);
            if (syscall(SYS_pread64, fd, file->before[block], BLOCK, block * BLOCK) < 0)
                abort();
        }
        if (bad && !file->lost[block]) {
            file->lost[block] = 1;
            file->losses++;
        }
    }
}

/* Every block is on the disk now, or is lost. */
static int settle(struct file *file, int fd)
{
    int losses = file->losses, bad = is_set(file->flag);
    for (off_t block = 0; block < BLOCKS; block++) {
        if (file->before[block] == NULL)
            continue;
        if (bad || file->lost[block]) {
            losses++;
            if (syscall(SYS_pwrite64, fd, file->before[block], BLOCK, block * BLOCK) < 0)
                abort();
        }
        free(file->before[block]);
        file->before[block] = NULL;
        file->lost[block] = 0;
    }
    file->losses = 0;
    return losses;
}

static int sync_file(long call, int fd)
{
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd);
    int losses = 0;
    if (file != NULL) {
        /* A read-only process may sync, too. Never closed: closing would release the locks of this process. */
        static int database = -1;
        int own = fd;
        if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR) {
            if (database < 0)
                database = (int)syscall(SYS_openat, AT_FDCWD, file->path, O_RDWR);
            own = database;
        }
        losses = settle(file, own);
    }
    pthread_mutex_unlock(&lock);
    if (losses > 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(call, fd);
}

int fsync(int fd)
{
    return sync_file(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_file(SYS_fdatasync, fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at)
{
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd);
    int refused = file == &files[0] && is_set("refuse");
    if (file != NULL && !refused)
        keep(file, fd, at, count);
    pthread_mutex_unlock(&lock);
    if (refused) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, count, at);
}

ssize_t pread64(int fd, void *bytes, size_t count, off_t at)
{
    if (is_set("unreadable") && file_of(fd) == &files[0]) {
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, bytes, count, at);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    if (is_set("nolinks")) {
        errno = EPERM;
        return -1;
    }
    return (int)syscall(SYS_linkat, from, old, to, new, flags);
}

/* The process ends: blocks that are not on the disk are dropped from the kernel's cache, too. */
__attribute__((destructor)) static void forget(void)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        FILE *own = files[i].losses > 0 ? fopen(files[i].path, "r+") : NULL;
        if (own != NULL)
            settle(&files[i], fileno(own));
    }
}
