/* One row, read by two workers at once: by the owner of its shard (S), whom the queue tells of changes,
   and by the one that walks its range (R), who may be declared dead, and wake, while a second one goes on.
   Each writes in a transaction that looks whether it may still write.
   spin -a readings.pml && cc -O1 -DSAFETY -o pan pan.c && ./pan -m1000000
   Property: at rest the target holds the row's text, and nothing where it has none; and it comes to rest.
   Variants that leave something else: -DBROKEN_FENCE (writes over a later reading), -DBROKEN_TOUCH (a
   change that is found unchanged raises no fence), -DBROKEN_KEEP (and one that is found without text, and
   without a vector, does nothing), -DBROKEN_CLEAR (a row without text is deleted though a walk is under
   way), -DBROKEN_OWN (or though S has an older reading of it), -DBROKEN_EARLY (its tombstone goes though a
   walk is under way), -DBROKEN_LATE (or though S has an older reading), -DBROKEN_PAGE_CLEARS (R deletes
   what has no text), -DBROKEN_PAGE_TOMBSTONE (or writes a tombstone, and takes it away when the walk is
   over), -DBROKEN_ORPHANS (a walk ends without a look for them), -DBROKEN_ENTRIES (deletes entries that
   came after its reading), -DBROKEN_CHECK (R does not look whether it may write), -DBROKEN_FINISH (the
   walk ends before all of it is written), -DBROKEN_BEGIN (S writes what it read before the walk began),
   -DBROKEN_DISCARD (that is noted, and the queue is given up for the walk after that). */
#include "row.pml"
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef PROOFS
#define PROOFS 1                     /* walks that nobody asked for */
#endif
#ifndef DEATHS
#define DEATHS 0                     /* of R, and of S */
#endif
#define FREE 0                       /* the range: of nobody, of R number 1 or 2, or done */
#define DONE 3

bool asked = true;                   /* for a walk */
bool walking = false;
byte range = DONE;
byte deaths = 0;
bool dead = false;                   /* R number 1 */
bool superseded = false;             /* S */
byte sharing = 0;                    /* transactions that hold the write lock */

#define at_rest (changes == CHANGES && queue == 0 && !asked && !walking && readings == 0 && tombstone[0] == 0)

#ifdef BROKEN_CLEAR
#define needs_tombstone(i) older[i]
#elif defined(BROKEN_OWN)
#define needs_tombstone(i) walking
#else
#define needs_tombstone(i) (older[i] || walking)
#endif
#ifdef BROKEN_EARLY
#define is_over true
#else
#define is_over (!walking)
#endif
#ifdef BROKEN_BEGIN
#define is_outdated(i) false
#else
#define is_outdated(i) (fence[i] <= before)
#endif
#ifdef BROKEN_FINISH
#define is_walked (range != FREE)
#else
#define is_walked (range == DONE)
#endif
#ifdef BROKEN_CHECK
#define may_write true
#else
#define may_write (me == 2 || !dead)
#endif
#ifdef BROKEN_PAGE_TOMBSTONE
#define stores (text == NONE || (text >= TEXT && !same))
#else
#define stores (text >= TEXT && !same)
#endif

active proctype application() {
  if :: target = TEXT :: skip fi;
  do
  :: atomic {
       changes < CHANGES -> edit();
       if
       :: append()
       :: asked = true               /* no trigger saw it, or the queue was full */
       fi;
       changes++
     }
  :: changes == CHANGES -> break
  od
}

active proctype S() {
  byte me = 0;
  byte fence[2]; byte text[2]; bool has[2]; bool is_read[2]; bool same[2]; bool older[2]; byte entries[2];
end:
  do
  :: atomic { unread && !has[1] -> draw() }
  :: atomic { has[0] && !is_read[0] -> look(0) }
  :: atomic { has[0] && is_read[0] && has[1] && !is_read[1] -> look(1) }
  :: atomic { has[0] && is_read[0] && !superseded && !is_outdated(0) -> write(0, needs_tombstone(0)) }
  :: atomic { has[1] && is_read[1] && !superseded && !is_outdated(1) -> write(1, needs_tombstone(1)) }
  :: atomic { has[0] && is_read[0] && is_outdated(0) -> settle(0) }           /* it is read again */
  :: atomic { has[1] && is_read[1] && is_outdated(1) -> settle(1) }
  :: atomic { tombstone[me] != 0 && is_over && is_later(0) && is_later(1) && !superseded ->
       clear(tombstone[me]); tombstone[me] = 0 }
  :: atomic { superseded -> give_up(); superseded = false }       /* another pipeline begins */
  od
}

inline stop() { fence = 0; text = 0; same = false; exists = false; leave() }
inline pass() { range = DONE; stop() }                             /* in the transaction that writes */

active [2] proctype R() {
  byte me = _pid - 1; byte fence = 0; byte text = 0; bool same = false; bool exists = false;
#ifdef BROKEN_PAGE_TOMBSTONE
  byte cleared = 0;
#endif
end:
  do
#ifdef BROKEN_PAGE_TOMBSTONE
  :: atomic { cleared != 0 && !walking -> clear(cleared); cleared = 0 }
#endif
  :: atomic { walking && range == FREE && (me == 2) == dead -> range = me; readings++; break }
  od;
  atomic { fences++; fence = fences }
  atomic { text = source; same = is_same }
  if                                 /* a long text is read once more, whole */
  :: atomic { text >= TEXT && !same -> text = source }
  :: skip
  fi;
  if
  :: atomic { !may_write -> stop() }
  :: atomic { may_write && text == GONE -> if :: source == GONE -> delete(fence) :: else fi; pass() }
#ifdef BROKEN_PAGE_CLEARS
  :: atomic { may_write && text == NONE -> delete(fence); pass() }
#endif
#if !defined(BROKEN_PAGE_CLEARS) && !defined(BROKEN_PAGE_TOMBSTONE)
  :: atomic { may_write && text == NONE -> if :: target != GONE -> append() :: else fi; pass() }
#endif
  :: atomic { may_write && text >= TEXT && same -> pass() }
  :: atomic {                        /* its statement begins */
       may_write && stores -> sharing++;
       if :: exists = (source != GONE) :: exists = true fi         /* a fill does not look */
     }
     atomic {
       store(fence, text, exists); sharing--;
#ifdef BROKEN_PAGE_TOMBSTONE
       if :: text == NONE && exists -> cleared = fence :: else fi;
#endif
       pass()
     }
  fi;
  goto end
}

active proctype leader() {
  byte proofs = 0;
end:
  do
  :: atomic { asked && !walking && sharing == 0 ->
       asked = false; walking = true; before = fences;
#ifdef BROKEN_DISCARD
     }
     atomic {
#endif
       range = FREE;
       if :: queue = 0 :: skip fi    /* it was full: the walk answers it */
     }
  :: atomic { proofs < PROOFS && !asked && !walking -> proofs++; walking = true; range = FREE;
       before = fences }
  :: atomic { deaths < DEATHS && range == 1 && !dead && sharing == 0 -> deaths++; dead = true; range = FREE }
  :: atomic { deaths < DEATHS && !superseded && sharing == 0 -> deaths++; superseded = true }
  :: atomic { walking && is_walked -> walking = false; range = DONE;
#ifndef BROKEN_ORPHANS
       if :: source == GONE && target != GONE -> append() :: else fi     /* for S to remove */
#endif
     }
  od
}

active proctype rest() {
  if
  :: atomic { at_rest -> assert(fits) }
  :: timeout -> assert(at_rest)
  fi
}
