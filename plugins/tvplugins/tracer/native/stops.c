/* Does at each stop what has to be done, and lets the task go on. */
#define _GNU_SOURCE
#include "stops.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "call_stops.h"
#include "inject.h"
#include "programs.h"
#include "tasks.h"

#define MOST_HELD_NS 1000000000 /* who made a task may have been killed before it was heard of */
#define SOON_NS 100000
#define LINGER_S 2 /* how long the record goes on after the command has ended */

static bool passing; /* calls with the key */
static unsigned looked_again;
static int64_t held_since_ns;
static volatile sig_atomic_t lingered;

static void resume(pid_t tid, enum __ptrace_request how, int signal_number)
{
    ptrace(how, tid, 0, signal_number); /* it may have been killed meanwhile: then its end is reported next */
}

static void executed(pid_t tid)
{
    static char program[PATH_BYTES], head[PATH_BYTES], path[PATH_BYTES];
    unsigned long former = tid;
    struct auxiliary told;
    ptrace(PTRACE_GETEVENTMSG, tid, 0, &former);
    struct task *task = task_of((pid_t)former);
    int length = read_link(tid, "exe", -1, program);
    int path_length = read_auxiliary(tid, &told, path);
    if (task->call != SYS_execve && task->call != SYS_execveat) {
        /* The filter let it pass, so it came with the key. */
        if (passing && record_is_open())
            record_call_has_ended();
        else if (record_is_open())
            record_trouble("a program was executed without a call that was seen");
        task->flags = 0;
        strings_clear(&task->strings);
        strings_add(&task->strings, path, path_length);
        strings_add(&task->strings, "", 0);
    }
    strings_add(&task->strings, head, read_head(tid, &told, head));
    strings_add(&task->strings, told.arguments, told.arguments_bytes);
    record_call(tid, EXECUTED, (long long)former, task->flags, program, length, &task->strings);
    bool filtered = task->filtered;
    if ((pid_t)former != tid)
        tasks_forget((pid_t)former);
    task = task_of(tid);
    task->call = -1;
    task->shares = false;
    task->filtered = filtered;
    task->inside = record_is_open() && !filtered && inject(tid, told.base, told.kernel);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A new task may stop before the kernel tells who made it: it waits for that, so that nothing is told of it before.
 * It may even end whoever made it, by executing a program, and then that would never be told. */
static bool hold(struct task *task)
{
    if (task->named)
        return false;
    if (!tasks_held) {
        held_since_ns = now_ns();
        looked_again = 0;
    }
    tasks_held += !task->held;
    task->held = true;
    return true;
}

static void let_go(struct task *task)
{
    if (!task->held)
        return;
    task->held = false;
    tasks_held--;
    resume(task->tid, PTRACE_CONT, 0);
}

static void let_go_unnamed(struct task *task)
{
    task->inside |= task->held; /* it may be */
    task->named = true;
    let_go(task);
}

/* Nothing is to be done but to hear who made the tasks that are held, which takes microseconds if all goes well. */
static void wait_for_names(void)
{
    int64_t waited_ns = now_ns() - held_since_ns;
    /* On a busy machine we may be who did not run for so long. */
    if (waited_ns > MOST_HELD_NS && ++looked_again > 1000)
        tasks_each(let_go_unnamed);
    else if (waited_ns < SOON_NS)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = SOON_NS}, NULL);
}

static void shares(struct task *task)
{
    if (!task->shares)
        task_turn_off(task);
    task->shares = true;
}

static void cloned(pid_t tid)
{
    unsigned long child = 0;
    uint64_t flags = 0;
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &child) || ptrace(PTRACE_GETREGS, tid, 0, &registers)) {
        record_trouble("a process was started that could not be looked at");
        return;
    }
    if (registers.orig_rax == SYS_clone)
        flags = registers.rdi;
    else if (registers.orig_rax == SYS_clone3 && !read_memory(tid, registers.rdi, &flags, sizeof flags))
        record_trouble("a process was started that could not be looked at");
    record_call(tid, CLONED, (long long)child, flags, NULL, 0, &(struct strings){0});
    struct task *made = task_of((pid_t)child);
    if (!made->named)
        made->inside = task_of(tid)->inside;
    made->named = true;
    made->filtered = task_of(tid)->filtered;
    /* After vfork the maker waits, but its other threads do not. */
    if ((flags & CLONE_VM) && !(flags & CLONE_VFORK))
        shares(task_of(tid));
    made->shares = (flags & CLONE_VM) && task_of(tid)->shares;
    let_go(made);
}

static void stopped(pid_t tid, int status)
{
    int signal_number = WSTOPSIG(status);
    struct task *task = task_of(tid);
    switch (status >> 16) {
    case PTRACE_EVENT_SECCOMP:
        resume(tid, record_is_open() && call_begins(task) ? PTRACE_SYSCALL : PTRACE_CONT, 0);
        return;
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE:
        cloned(tid);
        break;
    case PTRACE_EVENT_EXEC:
        executed(tid);
        break;
    case PTRACE_EVENT_STOP:
        if (signal_number == SIGSTOP || signal_number == SIGTSTP || signal_number == SIGTTIN ||
            signal_number == SIGTTOU) {
            resume(tid, PTRACE_LISTEN, 0); /* stopped for job control: it stays so until SIGCONT */
            return;
        }
        if (hold(task))
            return;
        break;
    default:
        if (signal_number == (SIGTRAP | 0x80)) {
            if (task->call >= 0)
                call_returns(task);
            break;
        }
        if ((signal_number == SIGSEGV || signal_number == SIGBUS) && inject_takes_fault(tid))
            signal_number = 0;
        /* A signal on its way; within a call its end is still to come. */
        resume(tid, task->call >= 0 ? PTRACE_SYSCALL : PTRACE_CONT, signal_number);
        return;
    }
    resume(tid, PTRACE_CONT, 0);
}

static void ended(pid_t tid, int status)
{
    struct task *task = task_of(tid);
    if (task->call >= 0)
        record_trouble("a process ended while a call had not returned");
    tasks_forget(tid);
    record_call(tid, ENDED, WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status), 0, NULL, 0,
                &(struct strings){0});
}

static void linger_over(int number)
{
    (void)number;
    lingered = 1;
}

void serve(pid_t command, bool has_key)
{
    int status;
    passing = has_key;
    /* Without SA_RESTART, so that waitpid comes back. */
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = linger_over}, NULL);
    for (;;) {
        pid_t tid = waitpid(-1, &status, __WALL | (tasks_held ? WNOHANG : 0));
        if (tid < 0 && errno == ECHILD)
            break;
        if (tid == 0)
            wait_for_names();
        if (lingered && record_is_open()) {
            record_trouble("a process was left running");
            record_close();
        }
        if (tid <= 0)
            continue;
        if (WIFSTOPPED(status)) {
            stopped(tid, status);
            continue;
        }
        ended(tid, status);
        if (tid == command && tasks_living)
            alarm(LINGER_S);
    }
    if (record_is_open()) {
        if (record_calls_under_way())
            record_trouble("a process ended while a call had not returned");
        record_call(0, END, 0, 0, NULL, 0, &(struct strings){0});
        record_close();
    }
}
