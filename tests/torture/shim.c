/* Stands between a process and the C library for every call that changes a file below one folder.
 *
 * It counts these calls, ends the process or fails the call at a chosen one, and writes down what each call changed.
 * It also sets the system clock, for these processes only; the clocks that nobody can set go on as they are.
 * Environment: SHIM_ROOT is the folder, without symbolic links; SHIM_CONTROL is a file with one `struct control`, which
 * the test maps as well; SHIM_LOG, where it is set, is the file to which the records go.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { OPEN = 1, CREATE, WRITE, SYNC, SYNC_DIRECTORY, RENAME, LINK, UNLINK, MKDIR, RMDIR, TRUNCATE };
enum { EXIT = -1, TORN = -2 }; /* actions; a positive one is an errno */

struct control {
    int64_t count;    /* calls so far, of the kinds in `mask` */
    int64_t at;       /* the call at which to act; 0 for none */
    int32_t action;   /* EXIT, TORN or an errno */
    int32_t sticky;   /* an errno: also at every later call */
    int32_t only_pid; /* 0 for every process */
    int32_t mask;     /* bits of enum kind */
    int64_t fired;    /* how often it acted */
    int64_t clock_s;  /* by which the system clock is set forward; negative for back */
};

struct record {
    uint32_t size; /* of the whole record */
    uint32_t kind;
    uint64_t inode;
    uint64_t offset; /* of a write, or the length after a truncation */
    uint32_t pid;
    uint16_t path_bytes, target_bytes;
};

#define DESCRIPTORS 65536
static char root[PATH_MAX];
static size_t root_bytes;
static struct control *control;
static int log_fd = -1;
static uint64_t inode_of[DESCRIPTORS]; /* 0: not below the root */
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real_##name)
#define NEED(name) \
    static void *real_##name; \
    if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name)

static void after_fork(void) { pthread_mutex_init(&turn, NULL); }

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("SHIM_ROOT"), *shared = getenv("SHIM_CONTROL"), *records = getenv("SHIM_LOG");
    if (!folder || !shared) return;
    NEED(open64);
    int fd = REAL(open64)(shared, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) return;
    if (records) log_fd = REAL(open64)(records, O_RDWR | O_APPEND | O_CLOEXEC);
    strncpy(root, folder, sizeof root - 1);
    root_bytes = strlen(root);
    pthread_atfork(NULL, NULL, after_fork);
    control = mapped;
}

/* The absolute path, "" where it does not lie below the root. */
static void below(int directory, const char *path, char *out) {
    char whole[2 * PATH_MAX];
    out[0] = 0;
    if (!control || !path) return;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        char base[PATH_MAX];
        if (directory == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t length = readlink(link, base, sizeof base - 1);
            if (length < 0) return;
            base[length] = 0;
        }
        snprintf(whole, sizeof whole, "%s/%s", base, path);
    }
    if (strncmp(whole, root, root_bytes) || (whole[root_bytes] != '/' && whole[root_bytes])) return;
    if (strlen(whole) >= PATH_MAX) return;
    strcpy(out, whole);
}

static uint64_t inode_at(const char *path) {
    struct stat status;
    return lstat(path, &status) ? 0 : status.st_ino;
}

/* The inode behind a descriptor below the root, else 0: a stale entry of a closed descriptor has another inode. */
static uint64_t followed(int fd, struct stat *status) {
    if (!control || fd < 0 || fd >= DESCRIPTORS || !inode_of[fd]) return 0;
    if (fstat(fd, status) || status->st_ino != inode_of[fd]) return inode_of[fd] = 0;
    return status->st_ino;
}

static void lock(void) {
    pthread_mutex_lock(&turn);
    if (log_fd >= 0) {
        struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        while (fcntl(log_fd, F_SETLKW, &whole) && errno == EINTR) {}
    }
}

static void unlock(void) {
    int before = errno;
    if (log_fd >= 0) {
        struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
        fcntl(log_fd, F_SETLK, &whole);
    }
    pthread_mutex_unlock(&turn);
    errno = before;
}

static void note(enum kind kind, uint64_t inode, uint64_t offset, const char *path, const char *target,
                 const void *data, size_t data_bytes) {
    if (log_fd < 0) return;
    int before = errno;
    struct record head = {.kind = kind, .inode = inode, .offset = offset, .pid = (uint32_t)getpid()};
    head.path_bytes = path ? (uint16_t)strlen(path) : 0;
    head.target_bytes = target ? (uint16_t)strlen(target) : 0;
    head.size = (uint32_t)(sizeof head + head.path_bytes + head.target_bytes + data_bytes);
    struct iovec parts[] = {{&head, sizeof head},
                            {(void *)path, head.path_bytes},
                            {(void *)target, head.target_bytes},
                            {(void *)data, data_bytes}};
    if (writev(log_fd, parts, 4) != (ssize_t)head.size) abort();
    errno = before;
}

/* Count a call; true where it must fail, with errno set. May end the process, after half of a write. */
static int fails(enum kind kind, int fd, const void *data, size_t bytes, off64_t offset) {
    if (!(control->mask >> kind & 1)) return 0;
    if (control->only_pid && control->only_pid != getpid()) return 0;
    int64_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    if (!control->at || number < control->at || (number > control->at && !control->sticky)) return 0;
    __atomic_add_fetch(&control->fired, 1, __ATOMIC_SEQ_CST);
    if (control->action > 0) {
        errno = control->action;
        return 1;
    }
    if (control->action == TORN && kind == WRITE) {
        NEED(write);
        NEED(pwrite64);
        if (offset < 0 ? REAL(write)(fd, data, bytes / 2) : REAL(pwrite64)(fd, data, bytes / 2, offset)) {}
    }
    _exit(137);
}

/* ---- files by path ------------------------------------------------------------------------------------------- */

static int opened(int directory, const char *path, int flags, mode_t mode) {
    NEED(openat64);
    char whole[PATH_MAX];
    below(directory, path, whole);
    if (!whole[0] || (flags & O_TMPFILE) == O_TMPFILE) return REAL(openat64)(directory, path, flags, mode);
    lock();
    uint64_t former = inode_at(whole);
    int creates = (flags & O_CREAT) && !former, truncates = (flags & O_TRUNC) && former;
    int fd = -1;
    if ((flags & O_ACCMODE) == O_RDONLY && !creates) {
        fd = REAL(openat64)(directory, path, flags, mode);
    } else if (!fails(creates ? CREATE : OPEN, -1, NULL, 0, -1)) {
        fd = REAL(openat64)(directory, path, flags, mode);
        if (fd >= 0 && creates) note(CREATE, inode_at(whole), 0, whole, NULL, NULL, 0);
        if (fd >= 0 && truncates) note(TRUNCATE, former, 0, whole, NULL, NULL, 0);
    }
    struct stat status;
    int before = errno;
    if (fd >= 0 && fd < DESCRIPTORS) inode_of[fd] = fstat(fd, &status) ? 0 : status.st_ino;
    errno = before;
    unlock();
    return fd;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int fd, const char *path, int flags, ...) { MODE_OF(flags) return opened(fd, path, flags, mode); }
int openat64(int fd, const char *path, int flags, ...) {
    MODE_OF(flags) return opened(fd, path, flags | O_LARGEFILE, mode);
}

static int renamed(int from_fd, const char *from, int to_fd, const char *to) {
    NEED(renameat);
    char old[PATH_MAX], new[PATH_MAX];
    below(from_fd, from, old);
    below(to_fd, to, new);
    if (!old[0] && !new[0]) return REAL(renameat)(from_fd, from, to_fd, to);
    lock();
    int result = fails(RENAME, -1, NULL, 0, -1) ? -1 : REAL(renameat)(from_fd, from, to_fd, to);
    if (!result) note(RENAME, inode_at(new), 0, old, new, NULL, 0);
    unlock();
    return result;
}

int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int a, const char *from, int b, const char *to) { return renamed(a, from, b, to); }

static int linked(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    NEED(linkat);
    char new[PATH_MAX];
    below(to_fd, to, new);
    if (!new[0]) return REAL(linkat)(from_fd, from, to_fd, to, flags);
    lock();
    int result = fails(LINK, -1, NULL, 0, -1) ? -1 : REAL(linkat)(from_fd, from, to_fd, to, flags);
    if (!result) note(LINK, inode_at(new), 0, new, NULL, NULL, 0);
    unlock();
    return result;
}

int link(const char *from, const char *to) { return linked(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) { return linked(a, from, b, to, flags); }

static int unlinked(int fd, const char *path, int flags) {
    NEED(unlinkat);
    char whole[PATH_MAX];
    below(fd, path, whole);
    uint64_t inode = whole[0] ? inode_at(whole) : 0;
    if (!inode) return REAL(unlinkat)(fd, path, flags);
    enum kind kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK;
    lock();
    int result = fails(kind, -1, NULL, 0, -1) ? -1 : REAL(unlinkat)(fd, path, flags);
    if (!result) note(kind, inode, 0, whole, NULL, NULL, 0);
    unlock();
    return result;
}

int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinked(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int fd, const char *path, int flags) { return unlinked(fd, path, flags); }

static int made(int fd, const char *path, mode_t mode) {
    NEED(mkdirat);
    char whole[PATH_MAX];
    below(fd, path, whole);
    if (!whole[0] || inode_at(whole)) return REAL(mkdirat)(fd, path, mode);
    lock();
    int result = fails(MKDIR, -1, NULL, 0, -1) ? -1 : REAL(mkdirat)(fd, path, mode);
    if (!result) note(MKDIR, inode_at(whole), 0, whole, NULL, NULL, 0);
    unlock();
    return result;
}

int mkdir(const char *path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int fd, const char *path, mode_t mode) { return made(fd, path, mode); }

/* ---- files by descriptor ------------------------------------------------------------------------------------- */

ssize_t write(int fd, const void *data, size_t bytes) {
    NEED(write);
    struct stat status;
    uint64_t inode = followed(fd, &status);
    if (!inode) return REAL(write)(fd, data, bytes);
    lock();
    ssize_t result = fails(WRITE, fd, data, bytes, -1) ? -1 : REAL(write)(fd, data, bytes);
    if (result > 0) note(WRITE, inode, (uint64_t)(lseek64(fd, 0, SEEK_CUR) - result), NULL, NULL, data, (size_t)result);
    unlock();
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset) {
    NEED(pwrite64);
    struct stat status;
    uint64_t inode = followed(fd, &status);
    if (!inode) return REAL(pwrite64)(fd, data, bytes, offset);
    lock();
    ssize_t result = fails(WRITE, fd, data, bytes, offset) ? -1 : REAL(pwrite64)(fd, data, bytes, offset);
    if (result > 0) note(WRITE, inode, (uint64_t)offset, NULL, NULL, data, (size_t)result);
    unlock();
    return result;
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t offset) { return pwrite64(fd, data, bytes, offset); }

int ftruncate64(int fd, off64_t length) {
    NEED(ftruncate64);
    struct stat status;
    uint64_t inode = followed(fd, &status);
    if (!inode) return REAL(ftruncate64)(fd, length);
    lock();
    int result = fails(TRUNCATE, -1, NULL, 0, -1) ? -1 : REAL(ftruncate64)(fd, length);
    if (!result) note(TRUNCATE, inode, (uint64_t)length, NULL, NULL, NULL, 0);
    unlock();
    return result;
}

int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int synced(int fd, int (*real)(int)) {
    struct stat status;
    uint64_t inode = followed(fd, &status);
    if (!inode) return real(fd);
    enum kind kind = S_ISDIR(status.st_mode) ? SYNC_DIRECTORY : SYNC;
    lock();
    int result = fails(kind, -1, NULL, 0, -1) ? -1 : real(fd);
    if (!result) note(kind, inode, 0, NULL, NULL, NULL, 0);
    unlock();
    return result;
}

int fsync(int fd) {
    NEED(fsync);
    return synced(fd, REAL(fsync));
}

int fdatasync(int fd) {
    NEED(fdatasync);
    return synced(fd, REAL(fdatasync));
}

/* ---- the system clock ---------------------------------------------------------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *now) {
    NEED(clock_gettime);
    int result = REAL(clock_gettime)(clock, now);
    if (!result && control && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += control->clock_s;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    NEED(gettimeofday);
    int result = REAL(gettimeofday)(now, zone);
    if (!result && control) now->tv_sec += control->clock_s;
    return result;
}

time_t time(time_t *target) {
    NEED(time);
    time_t now = REAL(time)(NULL) + (control ? control->clock_s : 0);
    if (target) *target = now;
    return now;
}
