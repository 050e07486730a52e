"""Small programs that the tracers' suite compiles: each does one thing that a tracer might miss."""

from __future__ import annotations

REFUSED = 7
"""The exit status of those that were not allowed to do it here."""

_HEAD = r"""
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>
extern char **environ;
static int reads(const char *path) {
    char buffer[64];
    int file = open(path, O_RDONLY);
    return file < 0 || read(file, buffer, sizeof buffer) < 0 || close(file);
}
static int waits(pid_t child) {
    int status = 1;
    return child < 0 || waitpid(child, &status, __WALL) != child || status;
}
int main(int argc, char **argv) { (void)argc; (void)argv; (void)reads; (void)waits;
"""

_BODIES = {
    "open_read": 'return reads("file");',
    "read_and_map": r"""
        int file = openat(AT_FDCWD, "file", O_RDONLY);
        char *mapped = mmap(NULL, 4, PROT_READ, MAP_PRIVATE, file, 0);
        FILE *stream = fopen("other", "r");
        return mapped == MAP_FAILED || mapped[0] == 1 || !stream;""",
    "relative_to_descriptor": r"""
        int above = open("folder", O_RDONLY | O_DIRECTORY), copy = dup(above);
        close(above);
        int file = openat(copy, "inner", O_RDONLY);
        struct stat status;
        fchdir(copy);
        return file < 0 || fstatat(file, "", &status, AT_EMPTY_PATH) || reads("deep") || !stat("none", &status);""",
    "openat2": r"""
        struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_NO_MAGICLINKS};
        return syscall(SYS_openat2, AT_FDCWD, "file", &how, sizeof how) < 0;""",
    "path_descriptor": r"""
        char name[64];
        int named = open("file", O_PATH);
        snprintf(name, sizeof name, "/proc/self/fd/%d", named);
        return open(name, O_RDONLY) < 0;""",
    "vfork_child": r"""
        pid_t child = vfork();
        if (!child) { execl("./open_read", "open_read", (char *)0); _exit(9); }
        return waits(child);""",
    "small_stack_child": r"""
        static unsigned char memory[65536];
        syscall(SYS_getpid); /* bound now, which takes much stack */
        pid_t child = clone(becomes, memory + sizeof memory, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
        int failed = waits(child);
        /* What is further down belongs to somebody else. */
        for (unsigned at = 0; at < sizeof memory - 768; at++) failed |= memory[at];
        return failed;""",
    "clone_child": r"""
        pid_t child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (!child) _exit(chdir("folder") || reads("inner"));
        return waits(child) || reads("file");""",
    "shared_directory": r"""
        pid_t child = syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0);
        if (!child) _exit(chdir("folder"));
        return waits(child) || reads("inner");""",
    "clone3_child": r"""
        struct { uint64_t fields[11]; } arguments = {{0}};
        arguments.fields[4] = SIGCHLD;
        pid_t child = syscall(SYS_clone3, &arguments, sizeof arguments);
        if (!child) _exit(reads("file"));
        return waits(child);""",
    "direct_calls": r"""
        struct stat status;
        return syscall(SYS_open, "file", O_RDONLY) < 0 || syscall(SYS_stat, "other", &status) ||
               !syscall(SYS_access, "none", F_OK);""",
    "memory_program": r"""
        char raw[65536];
        int bytes, file = open("open_read", O_RDONLY), memory = memfd_create("program", MFD_CLOEXEC);
        while ((bytes = read(file, raw, sizeof raw)) > 0) if (write(memory, raw, bytes) != bytes) return 1;
        char *arguments[] = {"program", NULL};
        syscall(SYS_execveat, memory, "", arguments, environ, AT_EMPTY_PATH);
        return 9;""",
    "unnamed_file": r"""
        int file = open(".", O_TMPFILE | O_RDWR, 0600);
        char name[64];
        snprintf(name, sizeof name, "/proc/self/fd/%d", file);
        return write(file, "x", 1) != 1 || linkat(AT_FDCWD, name, AT_FDCWD, "made", AT_SYMLINK_FOLLOW);""",
    "io_uring": r"""
        char parameters[512] = {0};
        return syscall(SYS_io_uring_setup, 4, parameters) < 0 ? 7 : 0;""",
    "namespace": "return unshare(CLONE_NEWUSER) ? 7 : 0;",
    "changes_root": 'return chroot("folder") ? 7 : 0;',
    "daemon": r"""
        if (fork()) return 0;
        setsid();
        if (fork()) return 0;
        close(0); close(1); close(2);
        poll(NULL, 0, 1500);
        return reads("file");""",
    "killed_child": r"""
        pid_t child = fork();
        if (!child) { reads("file"); raise(SIGKILL); }
        int status = 0;
        return waitpid(child, &status, 0) != child || status != SIGKILL;""",
    "sockets": r"""
        struct sockaddr_in there = {AF_INET, htons(9), {htonl(INADDR_LOOPBACK)}, {0}};
        struct sockaddr_un local = {AF_UNIX, "no-socket"};
        struct msghdr message = {.msg_name = &there, .msg_namelen = sizeof there};
        connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&there, sizeof there);
        connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&local, sizeof local);
        there.sin_port = htons(10);
        sendto(socket(AF_INET, SOCK_DGRAM, 0), "", 0, 0, (void *)&there, sizeof there);
        there.sin_port = htons(11);
        sendmsg(socket(AF_INET, SOCK_DGRAM, 0), &message, 0);
        return 0;""",
    "changes_names": r"""
        int file = open("made", O_CREAT | O_EXCL | O_WRONLY, 0600);
        symlink("file", "link");
        return file < 0 || fchmod(file, 0644) || reads("link") || rename("made", "moved") || unlink("other") ||
               mkdir("new", 0700) || truncate("file", 1) || link("file", "second");""",
    "many": r"""
        struct stat status;
        char name[32];
        for (int number = 0; number < 50000; number++) {
            snprintf(name, sizeof name, "none-%d", number);
            stat(name, &status);
        }
        return 0;""",
    "bad_pointer": r"""
        return open((char *)8, O_RDONLY) >= 0 || errno != EFAULT ||
               open((char *)-1, O_RDONLY) >= 0 || errno != EFAULT ||
               sendmsg(socket(AF_INET, SOCK_DGRAM, 0), (void *)8, 0) >= 0 || errno != EFAULT;""",
    "unreadable_path": r"""
        char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct stat status;
        mprotect(pages + 4096, 4096, PROT_NONE);
        memcpy(pages + 4091, "file", 5);
        if (reads(pages + 4091) || stat(pages + 4091, &status)) return 1;
        memcpy(pages + 4092, "file", 4);
        return !open(pages + 4092, O_RDONLY) || errno != EFAULT || !stat(pages + 4096, &status) || errno != EFAULT ||
               !stat("file", (void *)(pages + 4096)) || errno != EFAULT;""",
    "keeps_registers": r"""
        long before[6] = {0, F_OK, 3, 8, 9, 10}, after[6], vector[2] = {5, 6}, kept[2], result;
        before[0] = (long)"file";
        __asm__ volatile(
            "movdqu %[vector], %%xmm9\n mov %[function], %%rax\n lea %[after], %%rbx\n lea %[kept], %%r12\n"
            "lea %[before], %%rcx\n mov (%%rcx), %%rdi\n mov 8(%%rcx), %%rsi\n mov 16(%%rcx), %%rdx\n"
            "mov 24(%%rcx), %%r8\n mov 32(%%rcx), %%r9\n mov 40(%%rcx), %%r10\n mov %%rsp, %%r13\n sub $128, %%rsp\n"
            "and $-16, %%rsp\n call *%%rax\n mov %%r13, %%rsp\n mov %%rdi, (%%rbx)\n mov %%rsi, 8(%%rbx)\n"
            "mov %%rdx, 16(%%rbx)\n mov %%r8, 24(%%rbx)\n mov %%r9, 32(%%rbx)\n mov %%r10, 40(%%rbx)\n"
            "movdqu %%xmm9, (%%r12)\n"
            : [after] "=m"(after), [kept] "=m"(kept), "=&a"(result)
            : [before] "m"(before), [vector] "m"(vector), [function] "r"(access)
            : "rbx", "r12", "r13", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "xmm9", "cc", "memory");
        return (int)result || memcmp(before, after, sizeof after) || memcmp(vector, kept, sizeof kept);""",
    "handles_signals": r"""
        void on_alarm(int number) { struct stat status; int was = errno; stat("none", &status); errno = was; }
        struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
        stack_t stack = {.ss_sp = malloc(SIGSTKSZ), .ss_size = SIGSTKSZ};
        struct itimerval often = {{0, 300}, {0, 300}};
        struct stat status;
        sigaltstack(&stack, NULL);
        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &often, NULL);
        for (int at = 0; at < 3000; at++)
            if (stat("file", &status) || !access("no", F_OK) || errno != ENOENT || reads("other")) return 1;
        return 0;""",
    "filters_itself": r"""
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_gettid, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        struct sock_fprog program = {4, filter};
        struct stat status;
        if (reads("other") || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 1;
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 1;
        return reads("file") || !stat("none", &status);""",
    "filters_what_follows": r"""
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_gettid, 1, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mremap, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        struct sock_fprog program = {5, filter};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 1;
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 1;
        if (fork() == 0) return execl("./open_read", "open_read", (char *)0);
        int status = 0;
        wait(&status);
        return status ? 2 : execl("./open_read", "open_read", (char *)0);""",
    "second_library": r"""
        void *library = dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);
        int (*looks)(const char *, int) = library ? dlsym(library, "access") : access;
        return looks("file", F_OK) || !looks("none", F_OK);""",
    "large_environment": r"""
        char *value = malloc(100001), name[16];
        memset(value, 'x', 100000);
        value[100000] = 0;
        for (int at = 0; at < 10; at++) { snprintf(name, sizeof name, "LARGE%d", at); setenv(name, value, 1); }
        return execl("./open_read", "open_read", (char *)0);""",
    "killed_waiting": r"""
        char text[512] = "", *state = NULL;
        mkfifo("pipe", 0600);
        pid_t child = fork();
        if (!child) { prctl(PR_SET_PDEATHSIG, SIGKILL); reads("pipe"); _exit(1); }
        snprintf(text, sizeof text, "/proc/%d/stat", child);
        int states = open(text, O_RDONLY);
        do { pread(states, text, sizeof text - 1, 0); state = strrchr(text, ')'); } while (!state || state[2] != 'S');
        kill(child, SIGKILL);
        return waitpid(child, NULL, 0) != child;""",
    "file_handles": r"""
        struct { struct file_handle head; char rest[128]; } handle = {.head = {.handle_bytes = 128}};
        int mount;
        name_to_handle_at(AT_FDCWD, "other", &handle.head, &mount, 0);
        name_to_handle_at(AT_FDCWD, "none", &handle.head, &mount, 0);
        return 0;""",
    "traces": "return ptrace(PTRACE_TRACEME, 0, 0, 0) ? 7 : 0;",
    "locks_memory": r"""
        long pages = 0;
        mlockall(MCL_CURRENT);
        FILE *sizes = fopen("/proc/self/statm", "r");
        return fscanf(sizes, "%ld", &pages) != 1 || pages > 65536;""",
    "cancelled": r"""
        pthread_t thread;
        void *result = NULL;
        alarm(10);
        return mkfifo("pipe", 0600) || pthread_create(&thread, NULL, waits_for_pipe, NULL) || pthread_cancel(thread) ||
               pthread_join(thread, &result) || result != PTHREAD_CANCELED;""",
}

_THREADS = r"""
static void *reader(void *number) {
    char name[32];
    struct stat status;
    for (int at = 0; at < 50; at++) {
        snprintf(name, sizeof name, "none-%ld-%d", (long)number, at);
        stat(name, &status);
    }
    return NULL;
}
"""

_TALKS = r"""
static char name[] = "none";
static void *talker(void *none) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "no-socket"};
    struct stat status;
    stat(name, &status);
    strcpy(name, "gone");
    return (void *)(long)connect(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address);
}
"""

_RACE = r"""
    pthread_t threads[8];
    for (long at = 0; at < 8; at++) pthread_create(&threads[at], NULL, reader, (void *)at);
    for (long at = 0; at < 8; at++) pthread_join(threads[at], NULL);
    return 0;"""

_EXEC_FROM_THREAD = r"""
    pthread_t thread;
    pthread_create(&thread, NULL, becomes, NULL);
    pause();
    return 1;"""

_BECOMES = r"""
static void *waits_for_pipe(void *none) { open("pipe", O_RDONLY); return none; }
static int becomes(void *none) {
    static char *arguments[] = {"open_read", NULL}, *variables[201];
    for (int at = 0; at < 200; at++) variables[at] = "VARIABLE=value";
    syscall(SYS_execve, "./open_read", arguments, variables);
    return 9;
}
"""

SOURCES: dict[str, str] = {
    name: f"{_HEAD.replace('int main', _BECOMES + 'int main')}{body}\n}}\n" for name, body in _BODIES.items()
} | {
    "threads": _HEAD.replace("int main", _THREADS + "int main") + _RACE + "\n}\n",
    "thread_talks": _HEAD.replace("int main", _TALKS + "int main")
    + "pthread_t thread; pthread_create(&thread, NULL, talker, NULL); return pthread_join(thread, NULL);\n}\n",
    "thread_executes": _HEAD.replace(
        "int main",
        'static void *becomes(void *none) { execl("./open_read", "open_read", (char *)0); return none; }\nint main',
    )
    + _EXEC_FROM_THREAD
    + "\n}\n",
}
"""C, by name; run in a directory with the files `file`, `other`, `folder/inner` and `folder/deep`."""
