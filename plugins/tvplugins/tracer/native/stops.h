/* What the tracer does while the command runs. */
#ifndef STOPS_H
#define STOPS_H

#include <stdbool.h>
#include <sys/types.h>

/* Serves all that stops, and returns when nothing is left to trace.  What the command leaves behind still needs us, but
 * is recorded no more.  `has_key`: calls may pass the filter with it. */
void serve(pid_t command, bool has_key);

#endif
