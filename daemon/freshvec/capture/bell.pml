/* The bell of one sync: writers, those who keep it, who may die and come back, and one advisory lock.
   A keeper holds the lock exclusively while it wants to be rung. A writer that gets it shared knows that
   nobody wants it, and keeps it until its transaction has ended; one that does not get it rings, and all who
   listen are rung. A keeper that finds that another one has the lock may sleep as well; who lets it go tells
   the others; and they see, sooner or later, that one has died or come.
   spin -DNW=2 -a bell.pml && cc -O1 -DSAFETY -o pan pan.c && ./pan -m1000000
   Property: a keeper that sleeps, with nothing under way that wakes it, has left no committed row unread once
   all writers have ended.
   Variants that lose a row: -DBROKEN_TAKE (wants to be rung though writers hold the lock), -DBROKEN_NOREAD
   (no read after that), -DBROKEN_LISTEN (LISTEN after that read), -DBROKEN_EARLY (a writer lets go before
   it commits), -DBROKEN_CLEAR (forgets what rang after it has read), -DBROKEN_KEPT (the lock outlives the
   keeper's LISTEN, and who comes back does not read). With two keepers, -DNK=2, also: -DBROKEN_OTHERS (no
   read after another was found to have the lock), -DBROKEN_TELL (who lets go does not tell),
   -DBROKEN_TELL_FIRST (or tells before that), -DBROKEN_GONE (nobody minds who has died). */
#ifndef NW
#define NW 2
#endif
#ifndef NK
#define NK 1
#endif
#ifndef CHANGES
#define CHANGES 2
#endif
#define NOBODY NK
#define OTHER (NK - 1 - me)
byte holder = NOBODY;      /* of the lock, exclusively: writers ring */
byte quiet = 0;            /* writers that hold it shared */
bool rows[NK];             /* committed, and unread by this keeper */
byte life[NK];             /* of a keeper: a notification goes to who listened at the commit, or nobody */
bool listening[NK];
bool note[NK];             /* a notification that has arrived */
bool told[NK];             /* one that somebody has let the bell go */
bool seen[NK];             /* false: another has died or come, which this one does not know yet */
bool telling = false;
byte done = 0;
bool asleep[NK];

#define all(array, value) array[0] = value; array[NK - 1] = value

active [NW] proctype writer() {
  bool rings; bool heard[NK]; byte i; byte statement; byte mine; byte whose[NK];
  for (i : 1 .. CHANGES) {
    rings = false; mine = 0;
    for (statement : 1 .. 2) {
      atomic { if :: holder != NOBODY -> rings = true :: else -> quiet++; mine++ fi }
    }
#ifdef BROKEN_EARLY
    atomic { quiet = quiet - mine; mine = 0 }
#endif
    if
    :: atomic {                                                      /* commit: the rows can be seen */
         all(rows, true);
         heard[0] = rings && listening[0]; whose[0] = life[0];
         heard[NK - 1] = rings && listening[NK - 1]; whose[NK - 1] = life[NK - 1]
       }
    :: atomic { all(heard, false) }                                  /* abort */
    fi;
    atomic { quiet = quiet - mine; mine = 0 }                        /* then the locks go */
    atomic {                                                         /* then it rings */
      if :: heard[0] && whose[0] == life[0] -> note[0] = true :: else fi;
      if :: heard[NK - 1] && whose[NK - 1] == life[NK - 1] -> note[NK - 1] = true :: else fi;
      all(heard, false); all(whose, 0); rings = false
    }
  }
  done++
}

active [NK] proctype keeper() {
  byte me = _pid - NW;
start:
#ifndef BROKEN_LISTEN
  listening[me] = true;
#endif
#ifdef BROKEN_KEPT
  if :: holder == me -> goto sleep :: else fi;
#endif
awake:                                           /* polls: nobody rings */
  atomic { note[me] = false; told[me] = false; seen[me] = true }
  rows[me] = false;                              /* read everything there is */
  if
  :: life[me] < 1 -> goto die
  :: goto awake
  :: goto want
  fi;
want:
#ifdef BROKEN_TAKE
  atomic { if :: holder == NOBODY -> holder = me :: else fi }
#else
  atomic {
    if
    :: holder == NOBODY && quiet == 0 -> holder = me
    :: holder == NOBODY && quiet != 0 -> goto awake
    :: holder != NOBODY                          /* another has it */
    fi
  }
#endif
#ifdef BROKEN_OTHERS
  if :: holder != me -> goto sleep :: else fi;
#endif
#ifndef BROKEN_NOREAD
  rows[me] = false;
#endif
#ifdef BROKEN_LISTEN
  listening[me] = true;
#endif
sleep:
  asleep[me] = true;
end:
  if
  :: atomic { note[me] -> asleep[me] = false } -> goto rung
  :: atomic { told[me] -> told[me] = false; asleep[me] = false } -> goto changed
  :: atomic { !seen[me] -> seen[me] = true; asleep[me] = false } -> goto changed
  :: atomic { life[me] < 1 -> asleep[me] = false } -> goto die
  fi;
rung:
#ifndef BROKEN_CLEAR
  note[me] = false;
#endif
  rows[me] = false;
#ifdef BROKEN_CLEAR
  note[me] = false;
#endif
  if
  :: goto sleep                                  /* still wants to be rung */
  :: holder != me -> goto awake
  :: holder == me ->                             /* it rings too often: polls instead */
#ifdef BROKEN_TELL_FIRST
     if :: NK == 2 -> told[OTHER] = listening[OTHER] :: else fi;
#endif
     atomic { holder = NOBODY; telling = (NK == 2) }
     atomic {
#if !defined(BROKEN_TELL) && !defined(BROKEN_TELL_FIRST)
       if :: NK == 2 -> told[OTHER] = listening[OTHER] :: else fi;
#endif
       telling = false
     }
     goto awake
  fi;
changed:
  if
  :: holder == me -> rows[me] = false; goto sleep
  :: holder != me -> goto awake
  fi;
die:
  life[me]++;
  atomic {                                       /* they go with its session */
    listening[me] = false; note[me] = false; told[me] = false;
#ifndef BROKEN_KEPT
    if :: holder == me -> holder = NOBODY :: else fi;
#endif
#ifndef BROKEN_GONE
    if :: NK == 2 -> seen[OTHER] = false :: else fi
#endif
  }
  goto start
}

#define missed(k) (done == NW && asleep[k] && !note[k] && !told[k] && seen[k] && !telling && rows[k])
ltl fresh { [] (!missed(0) && !missed(NK - 1)) }
