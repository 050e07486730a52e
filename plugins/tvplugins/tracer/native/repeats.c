/* Walks over a record, past the calls that only repeat what is known already.
 *
 * Nearly all calls of a build look at what others of its processes have looked at.  Python learns what such a call means: which
 * uses it notes (numbers that it gives them), for one working directory and one state of all symbolic links.  An equal
 * call of a task in that directory means the same for its process: it is noted here, each use once for a process, and
 * passed over.  At every other entry the walk stops, for Python to understand.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "record.h"

#define PAYLOAD_AT 24               /* in an entry: behind the task and the time, which differ */
#define MOST_TASKS (1 << 22)        /* the kernel's own limit on their numbers */
#define MOST_PAYLOADS (1u << 26)    /* what is more is never passed over */
#define NO_MEMORY UINT64_MAX
#define FEWEST_SLOTS 1024

struct payload {
    uint64_t hash;
    const char *at;
    uint32_t bytes;
    uint16_t kind, strings;
    bool is_met;                    /* more than once */
    uint32_t directory, links;      /* what it was learnt for; no directory: nothing was */
    uint32_t *uses;
    uint32_t use_count;
};

struct task {
    uint32_t process, directory;    /* no process: it is not known */
};

struct repeats {
    char *record;
    uint64_t length, position, end;
    uint32_t links;
    struct task *tasks;
    struct payload *payloads;
    uint32_t payload_count, payload_room;
    uint32_t *slots;                /* payload numbers by hash, from 1 */
    uint64_t slot_count;
    uint64_t *noted;                /* process << 32 | use, in their order */
    uint64_t noted_count, noted_room;
    uint64_t *seen;                 /* the same by hash; 0: free, for no process has that number */
    uint64_t seen_slots;
};

void taskvault_repeats_free(struct repeats *of)
{
    if (!of)
        return;
    for (uint32_t number = 0; number < of->payload_count; number++)
        free(of->payloads[number].uses);
    if (of->record)
        munmap(of->record, of->length);
    free(of->tasks);
    free(of->payloads);
    free(of->slots);
    free(of->noted);
    free(of->seen);
    free(of);
}

/* Walks over what lies from `first` to `end`, which is in the file.  Returns NULL if there is no memory for it. */
struct repeats *taskvault_repeats_new(int record, uint64_t first, uint64_t end)
{
    struct repeats *of = calloc(1, sizeof *of);
    if (!of)
        return NULL;
    void *mapped = mmap(NULL, end, PROT_READ, MAP_SHARED, record, 0);
    of->record = mapped == MAP_FAILED ? NULL : mapped;
    of->length = of->end = end;
    of->position = first;
    of->tasks = calloc(MOST_TASKS, sizeof *of->tasks); /* only what is used takes memory */
    of->slots = calloc(FEWEST_SLOTS, sizeof *of->slots);
    of->slot_count = FEWEST_SLOTS;
    of->seen = calloc(FEWEST_SLOTS, sizeof *of->seen);
    of->seen_slots = FEWEST_SLOTS;
    if (of->record && of->tasks && of->slots && of->seen)
        return of;
    taskvault_repeats_free(of);
    return NULL;
}

static uint64_t mixed(uint64_t sum, uint64_t word)
{
    sum = (sum ^ word) * 0x9e3779b97f4a7c15ull;
    return sum ^ sum >> 29;
}

/* --- what was noted -------------------------------------------------------------------------------------------------- */

static uint64_t *seen_slot(uint64_t *seen, uint64_t slots, uint64_t what)
{
    uint64_t at = mixed(0, what) & (slots - 1);
    while (seen[at] && seen[at] != what)
        at = (at + 1) & (slots - 1);
    return &seen[at];
}

static bool make_room_for_use(struct repeats *of)
{
    if (of->noted_count == of->noted_room) {
        uint64_t room = of->noted_room ? of->noted_room * 2 : FEWEST_SLOTS;
        uint64_t *noted = realloc(of->noted, room * sizeof *noted);
        if (!noted)
            return false;
        of->noted = noted;
        of->noted_room = room;
    }
    if (of->noted_count * 2 >= of->seen_slots) {
        uint64_t slots = of->seen_slots * 2, *seen = calloc(slots, sizeof *seen);
        if (!seen)
            return false;
        for (uint64_t n = 0; n < of->noted_count; n++)
            *seen_slot(seen, slots, of->noted[n]) = of->noted[n];
        free(of->seen);
        of->seen = seen;
        of->seen_slots = slots;
    }
    return true;
}

/* Notes a use.  Returns 1, or 0 if the same was noted of that process, or -1 if there is no memory. */
int taskvault_repeats_note(struct repeats *of, uint32_t use, uint32_t process)
{
    uint64_t what = (uint64_t)process << 32 | use, *slot = seen_slot(of->seen, of->seen_slots, what);
    if (*slot)
        return 0;
    if (!make_room_for_use(of))
        return -1;
    *seen_slot(of->seen, of->seen_slots, what) = what;
    of->noted[of->noted_count++] = what;
    return 1;
}

const uint64_t *taskvault_repeats_noted(const struct repeats *of, uint64_t *count)
{
    *count = of->noted_count;
    return of->noted;
}

/* --- tasks and links ------------------------------------------------------------------------------------------------- */

void taskvault_repeats_task(struct repeats *of, int32_t tid, uint32_t process, uint32_t directory)
{
    if (tid > 0 && tid < MOST_TASKS)
        of->tasks[tid] = (struct task){process, directory};
}

/* With another number nothing that was learnt before holds. */
void taskvault_repeats_links(struct repeats *of, uint32_t version)
{
    of->links = version;
}

/* --- calls ----------------------------------------------------------------------------------------------------------- */

static uint64_t hash_of(const struct head *head, const char *payload, uint32_t bytes)
{
    uint64_t sum = mixed(bytes, (uint64_t)head->kind << 16 | head->strings), word;
    for (; bytes >= sizeof word; bytes -= sizeof word, payload += sizeof word) {
        memcpy(&word, payload, sizeof word);
        sum = mixed(sum, word);
    }
    word = 0;
    memcpy(&word, payload, bytes);
    return mixed(sum, word);
}

static bool is_payload(const struct payload *known, uint64_t hash, const struct head *head, const char *at, uint32_t bytes)
{
    return known->hash == hash && known->bytes == bytes && known->kind == head->kind &&
           known->strings == head->strings && !memcmp(known->at, at, bytes);
}

static bool make_room_for_payload(struct repeats *of)
{
    if (of->payload_count == of->payload_room) {
        uint32_t room = of->payload_room ? of->payload_room * 2 : FEWEST_SLOTS;
        struct payload *payloads = realloc(of->payloads, room * sizeof *payloads);
        if (!payloads)
            return false;
        of->payloads = payloads;
        of->payload_room = room;
    }
    if ((uint64_t)of->payload_count * 2 >= of->slot_count) {
        uint64_t count = of->slot_count * 2;
        uint32_t *slots = calloc(count, sizeof *slots);
        if (!slots)
            return false;
        for (uint32_t number = 1; number <= of->payload_count; number++) {
            uint64_t at = of->payloads[number - 1].hash & (count - 1);
            while (slots[at])
                at = (at + 1) & (count - 1);
            slots[at] = number;
        }
        free(of->slots);
        of->slots = slots;
        of->slot_count = count;
    }
    return true;
}

/* Returns the number of what a call was given and answered, from 1; 0 if it cannot be remembered. */
static uint32_t number_of(struct repeats *of, const struct head *head, const char *at, uint32_t bytes)
{
    uint64_t hash = hash_of(head, at, bytes), slot;
    for (slot = hash & (of->slot_count - 1); of->slots[slot]; slot = (slot + 1) & (of->slot_count - 1))
        if (is_payload(&of->payloads[of->slots[slot] - 1], hash, head, at, bytes))
            return of->slots[slot];
    uint64_t slots_before = of->slot_count;
    if (of->payload_count == MOST_PAYLOADS || !make_room_for_payload(of))
        return 0;
    if (of->slot_count != slots_before)
        for (slot = hash & (of->slot_count - 1); of->slots[slot];)
            slot = (slot + 1) & (of->slot_count - 1);
    of->payloads[of->payload_count] =
        (struct payload){.hash = hash, .at = at, .bytes = bytes, .kind = head->kind, .strings = head->strings};
    return of->slots[slot] = ++of->payload_count;
}

/* Takes in what a call means, for this directory and the links as they are.  Returns false if there is no memory for it. */
bool taskvault_repeats_learn(struct repeats *of, uint32_t number, uint32_t directory, const uint32_t *uses, uint32_t count)
{
    if (!number || number > of->payload_count)
        return true;
    struct payload *payload = &of->payloads[number - 1];
    uint32_t *kept = malloc((count ? count : 1) * sizeof *kept);
    if (!kept)
        return false;
    if (count)
        memcpy(kept, uses, count * sizeof *kept);
    free(payload->uses);
    payload->uses = kept;
    payload->use_count = count;
    payload->directory = directory;
    payload->links = of->links;
    return true;
}

/* Goes to the next entry that is no repeat.  Returns where it is, with the number of its payload in the upper half if that is
 * met again (most that is not the same for all is met once); 0 at the end, or at what is no entry; NO_MEMORY. */
uint64_t taskvault_repeats_next(struct repeats *of)
{
    while (of->end - of->position >= sizeof(struct head)) {
        const char *entry = of->record + of->position;
        struct head head;
        memcpy(&head, entry, sizeof head);
        uint32_t length = head.length, number = 0;
        uint64_t here = of->position;
        if (length < sizeof head || length > of->end - here)
            return 0;
        of->position += length;
        if (head.kind < CLONED) {
            number = number_of(of, &head, entry + PAYLOAD_AT, length - PAYLOAD_AT);
            struct task task = head.tid > 0 && head.tid < MOST_TASKS ? of->tasks[head.tid] : (struct task){0, 0};
            struct payload *known = number ? &of->payloads[number - 1] : NULL;
            if (known && known->directory && task.process && known->directory == task.directory &&
                known->links == of->links) {
                for (uint32_t n = 0; n < known->use_count; n++)
                    if (taskvault_repeats_note(of, known->uses[n], task.process) < 0)
                        return NO_MEMORY;
                continue;
            }
            if (known && !known->is_met) {
                known->is_met = true;
                number = 0;
            }
        }
        return (uint64_t)number << 32 | here;
    }
    return 0;
}
