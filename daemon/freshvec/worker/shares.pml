/* Two members share a sync. A shard is read by whoever holds its lock, which goes with the session of the
   member's listener; the server ends a session that is silent, and the member may learn it late, amid its
   work. Who owns says so with a row (`take`), alone: others that have the shard too, or whose session has
   ended, lose theirs, and a transaction that writes looks whether its member's row is there. A member
   gives a shard up so that another may have it: it writes no more, says so, and lets the lock go.
   spin -a shares.pml && cc -O1 -DSAFETY -o pan pan.c && ./pan -m1000000
   Property: at rest the target of each row of the shard holds the row's text, and nothing where it has
   none; it comes to rest; and nobody's row is taken away whose session has not ended.
   Variants that break it: -DBROKEN_CHECK (writes without that look), -DBROKEN_LOCK (who takes does not
   wait for transactions), -DBROKEN_OTHERS (or does not take away the row of another), -DBROKEN_ENDED (what
   was read is written once the shard is given up), -DBROKEN_UNLOCK (lets the lock go before it says so),
   -DBROKEN_ELSEWHERE (takes on another session than that of its locks), -DBROKEN_BEFORE (reads before it
   takes). */
#include "../pipeline/row.pml"
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef ENDS
#define ENDS 1                       /* sessions that the server ends */
#endif
#ifndef GIVEN
#define GIVEN 1                      /* times that a shard is given up */
#endif
#define NOBODY 2

byte holder = NOBODY;                /* of the shard's lock */
bool session[2];
bool ended[2];                       /* since its member took */
bool there[2];                       /* the member's row */
bool owns[2];                        /* and the shard is named in it */
byte ends = 0;
byte given = 0;
byte sharing = 0;                    /* transactions that hold the write lock */

#define at_rest (changes == CHANGES && queue == 0 && readings == 0)

#ifdef BROKEN_CHECK
#define may_write true
#else
#define may_write there[me]
#endif
#ifdef BROKEN_LOCK
#define none_writes true
#else
#define none_writes (sharing == 0)
#endif
#ifdef BROKEN_ELSEWHERE
#define can_take true
#else
#define can_take session[me]
#endif

inline take(shard) {                 /* a member whose session has ended has no lock either */
#ifndef BROKEN_OTHERS
  if
  :: there[1 - me] && ((owns[1 - me] && shard) || !session[1 - me]) ->
     assert(ended[1 - me]); there[1 - me] = false; owns[1 - me] = false
  :: else
  fi;
#endif
  there[me] = true; owns[me] = shard; ended[me] = !session[me]
}

inline let_go() { if :: holder == me -> holder = NOBODY :: else fi }

active proctype application() {
  if :: target = TEXT :: append() fi;
  do
  :: atomic { changes < CHANGES -> edit(); append(); changes++ }
  :: changes == CHANGES -> break
  od
}

active [2] proctype member() {
  byte me = _pid - 1;
  byte fence[2]; byte text[2]; bool has[2]; bool is_read[2]; bool same[2]; bool older[2]; byte entries[2];
outside:
  atomic { session[me] = true }
end:
  do
  :: atomic { session[me] && holder == NOBODY && queue -> holder = me; break }
  :: atomic { !session[me] -> goto outside }
  od;
gain:
  do
  :: atomic { can_take && none_writes -> take(true); break }
  :: atomic { !session[me] -> give_up(); goto outside }
#ifdef BROKEN_BEFORE
  :: atomic { unread && !has[0] -> draw() }
  :: atomic { has[0] && !is_read[0] -> look(0) }
#endif
  od;
end_of_work:
  do
  :: atomic { unread && !has[1] -> draw() }
  :: atomic { has[0] && !is_read[0] -> look(0) }
  :: atomic { has[0] && is_read[0] && has[1] && !is_read[1] -> look(1) }
  :: atomic { has[0] && is_read[0] && may_write -> sharing++ }
     atomic { write(0, older[0]); sharing-- }
  :: atomic { has[1] && is_read[1] && may_write -> sharing++ }
     atomic { write(1, older[1]); sharing-- }
  :: atomic { tombstone[me] != 0 && is_later(0) && is_later(1) && may_write ->
       clear(tombstone[me]); tombstone[me] = 0 }
  :: atomic { has[0] && is_read[0] && !may_write -> give_up(); break }        /* superseded */
  :: atomic { !session[me] -> give_up(); goto outside }                       /* learns it, at last */
  :: atomic { given < GIVEN && session[me] && there[me] -> given++; goto shrink }
  od;
  if                                 /* it may hold the lock still */
  :: atomic { session[me] && holder == me -> goto gain }
  :: atomic { session[me] && holder != me -> goto end }
  :: atomic { !session[me] -> goto outside }
  fi;
shrink:
#ifndef BROKEN_ENDED
  atomic { give_up() }
#endif
#ifdef BROKEN_UNLOCK
  atomic { let_go() }
#endif
  if
  :: atomic { can_take && none_writes -> take(false) }
  :: atomic { !session[me] -> give_up(); goto outside }
  fi;
#ifndef BROKEN_UNLOCK
  atomic { let_go() }
#endif
#ifdef BROKEN_ENDED
  goto end_of_work
#else
  goto end
#endif
}

active proctype server() {
end:
  do
  :: atomic { ends < ENDS && session[0] -> ends++; session[0] = false; ended[0] = true;
       if :: holder == 0 -> holder = NOBODY :: else fi }
  :: atomic { ends < ENDS && session[1] -> ends++; session[1] = false; ended[1] = true;
       if :: holder == 1 -> holder = NOBODY :: else fi }
  od
}

active proctype rest() {
  if
  :: atomic { at_rest -> assert(fits) }
  :: timeout -> assert(at_rest)
  fi
}
