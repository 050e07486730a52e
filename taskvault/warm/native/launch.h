/* What the parts of the launcher share. */
#ifndef LAUNCH_H
#define LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define MOST_IDENTITY_BYTES 4096

/* Everything about this process, but for its directory, umask, arguments and variables, by which a command may come to
 * another result, or may do what another process may not.  Returns false if that cannot be told, or where the process is
 * confined or observed: then nobody else may look at files for it. */
bool describe_identity(char *text, size_t room);

/* Whether another process of our user may do all that we may, and not less: what it says we may carry out.  A confined one could
 * otherwise have us do what it may not. */
bool has_our_rights(pid_t process);

/* Asks the warm process of `home` to replay `arguments` of tv, or to have us run them.  Does not return if either was done.  `python` and `home` say which one
 * that is; it is started if there is none.  What is returned to is as if nothing had been asked. */
void ask_warm_process(const char *python, const char *home, char *const *arguments, char *const *environment);

/* Runs a command as the process at the other end of `peer` says, which observes it and stores its result.  Does not return if the
 * command was run. */
void run_for_warm_process(int peer);

/* Writes where the warm process listens that serves this vault with this code for processes like us. */
bool name_socket(const char *python, const char *home, const char *identity, char *const *environment, char *place, size_t room);

/* Starts it, unless somebody else does or has tried just now.  It holds a lock beside its socket as long as it lives.
 * Arguments are the interpreter, the vault, our identity, and where it is to listen. */
void start_warm_process(const char *const arguments[4], char *const *environment);

#endif
