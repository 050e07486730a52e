/* What a call that stopped is about. */
#ifndef CALL_STOPS_H
#define CALL_STOPS_H

#include <stdbool.h>

#include "tasks.h"

/* A call begins: reads its arguments.  Returns whether its result must be waited for. */
bool call_begins(struct task *task);

/* It has returned, and is noted. */
void call_returns(struct task *task);

#endif
