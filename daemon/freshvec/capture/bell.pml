/* The bell of one sync: writers, its keeper, who may die and come back, and one advisory lock.
   The keeper holds the lock exclusively while it wants to be rung. A writer that gets it shared knows that
   nobody wants it, and keeps it until its transaction has ended; one that does not get it rings.
   spin -DNW=2 -a bell.pml && cc -O1 -o pan pan.c && ./pan -a -m1000000
   Property: a keeper that sleeps, with no notification under way, has left no committed row unread once all
   writers have ended.
   Variants that lose a row: -DBROKEN_TAKE (wants to be rung though writers hold the lock), -DBROKEN_NOREAD
   (no read after that), -DBROKEN_LISTEN (LISTEN after that read), -DBROKEN_EARLY (a writer lets go before it
   commits), -DBROKEN_CLEAR (forgets what rang after it has read), -DBROKEN_KEPT (the lock outlives the
   keeper's LISTEN, and who comes back does not read). */
#ifndef NW
#define NW 2
#endif
bool wanted = false;       /* the keeper holds the lock exclusively */
byte quiet = 0;            /* writers that hold it shared */
byte rows = 0;             /* committed and unread */
byte life = 0;             /* of the keeper: a notification goes to who listened at the commit, or nobody */
bool listening = false;
bool note = false;         /* a notification that has arrived */
byte done = 0;
bool asleep = false;

active [NW] proctype writer() {
  bool rings; bool heard; byte i; byte statement; byte mine; byte whose;
  for (i : 1 .. 2) {
    rings = false; mine = 0;
    for (statement : 1 .. 2) {
      atomic { if :: wanted -> rings = true :: else -> quiet++; mine++ fi }
    }
#ifdef BROKEN_EARLY
    atomic { quiet = quiet - mine; mine = 0 }
#endif
    if
    :: atomic { rows++; heard = rings && listening; whose = life }      /* commit: the rows can be seen */
    :: atomic { heard = false }                                      /* abort */
    fi;
    atomic { quiet = quiet - mine; mine = 0 }                        /* then the locks go */
    atomic { if :: heard && whose == life -> note = true :: else -> skip fi }     /* then it rings */
  }
  done++;
}

active proctype keeper() {
start:
#ifndef BROKEN_LISTEN
  listening = true;
#endif
#ifdef BROKEN_KEPT
  if :: wanted -> goto sleep :: else -> skip fi;
#endif
awake:                                           /* polls: nobody rings */
  atomic { note = false; }
  rows = 0;                                      /* read everything there is */
  if
  :: life < 1 -> goto die
  :: goto awake
  :: goto want
  fi;
want:
#ifdef BROKEN_TAKE
  wanted = true;
#else
  atomic { if :: quiet == 0 -> wanted = true :: else -> goto awake fi }
#endif
#ifndef BROKEN_NOREAD
  rows = 0;
#endif
#ifdef BROKEN_LISTEN
  listening = true;
#endif
sleep:
  asleep = true;
end:
  if
  :: atomic { note -> asleep = false } -> goto rung
  :: atomic { life < 1 -> asleep = false } -> goto die
  fi;
rung:
#ifndef BROKEN_CLEAR
  note = false;
#endif
  rows = 0;
#ifdef BROKEN_CLEAR
  note = false;
#endif
  if
  :: goto sleep                                  /* still wants to be rung */
  :: wanted = false -> goto awake                /* it rings too often: polls instead */
  fi;
die:
  life++;
#ifdef BROKEN_KEPT
  atomic { listening = false; note = false }
#else
  atomic { wanted = false; listening = false; note = false }         /* they go with its session */
#endif
  goto start
}

ltl fresh { [] ((done == NW && asleep && !note) -> rows == 0) }
