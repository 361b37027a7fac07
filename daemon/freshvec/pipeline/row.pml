/* One row of a source and of its target, and how a pipeline that the queue tells of changes reads and
   writes it: two readings at most under way, the older one first. Each draws a fence, then reads, and
   writes later. For readings.pml (who walks reads the same row) and ../worker/shares.pml (another worker
   takes over). */
#define GONE 0                       /* no such row */
#define NONE 1                       /* a row without text; in the target: a tombstone */
#define TEXT 2                       /* and 3: two texts, so that an edit may bring the first one back */

byte source = TEXT;
byte target = GONE;
byte target_fence = 0;
byte fences = 0;                     /* the sequence */
byte queue = 0;                      /* its entries, a bit each */
byte entry = 0;                      /* the next one's number */
byte readings = 0;                   /* under way, of all */
byte tombstone[2];                   /* the fence of the last one of each pipeline */
byte before = 0;                     /* readings up to this fence are from before the walk */
byte changes = 0;                    /* of the application */

#define fits (target == source || (source <= NONE && target <= NONE))
#define is_same (target == source || (source == NONE && target == GONE))

#ifdef BROKEN_FENCE
#define admits(f) true
#else
#define admits(f) (target == GONE || target_fence < f)
#endif

inline edit() {
  if
  :: source != GONE -> source = GONE
  :: source != NONE -> source = NONE
  :: source != TEXT -> source = TEXT
  :: source != TEXT + 1 -> source = TEXT + 1
  fi
}

inline append() { queue = queue | (1 << entry); entry++; assert(entry < 8) }

inline store(f, value, exists) {     /* `exists` is what its snapshot saw, the fence what the row has now */
  if
  :: (exists) && admits(f) -> target = value; target_fence = f
  :: (exists) && !admits(f) && target != value -> append()        /* to be read again */
  :: else
  fi
}

inline touch(f, value) {
  if :: target == value && target_fence < f -> target_fence = f :: else fi;
  if :: target == GONE || target_fence < f -> append() :: else fi             /* unchanged no more */
}

inline delete(f) {
  if
  :: target != GONE && target_fence < f -> target = GONE; target_fence = 0
  :: target >= TEXT && target_fence > f -> append()
  :: else
  fi
}

inline clear(f) {                    /* a tombstone, unless something else was written since */
  if :: target == NONE && target_fence == f -> target = GONE; target_fence = 0 :: else fi
}

inline leave() {                     /* one reading less; after the last only matters what is equal */
  readings--;
  if
  :: readings == 0 ->
     if :: tombstone[0] == target_fence && target == NONE -> tombstone[0] = 1 :: else -> tombstone[0] = 0 fi;
     if :: tombstone[1] == target_fence && target == NONE -> tombstone[1] = 1 :: else -> tombstone[1] = 0 fi;
     target_fence = (target == GONE -> 0 : 1); fences = 1; before = 0;
     entry = (queue == 0 -> 0 : entry)
  :: else
  fi
}

/* Of the pipeline whose number is `me`, which has fence, text, has, is_read, same, older, entries. */
#define unread (queue & ~(entries[0] | entries[1]))
inline draw() {                      /* the entries, and then a fence */
  readings++; fences++;
  if
  :: has[0] -> has[1] = true; entries[1] = unread; fence[1] = fences
  :: else -> has[0] = true; entries[0] = unread; fence[0] = fences
  fi
}

inline look(i) {                     /* the text, and what the target holds */
  is_read[i] = true; text[i] = source; same[i] = is_same; older[i] = (i == 1)
}

#ifdef BROKEN_LATE
#define is_later(i) true
#else
#define is_later(i) (!has[i] || fence[i] > tombstone[me])
#endif

inline write(i, needs_tombstone) {
  if
  :: text[i] == GONE -> if :: source == GONE -> delete(fence[i]) :: else fi
#ifdef BROKEN_KEEP
  :: text[i] == NONE && !(needs_tombstone) && same[i] -> skip
#endif
  :: text[i] == NONE && !(needs_tombstone) -> delete(fence[i])
  :: text[i] == NONE && (needs_tombstone) -> store(fence[i], NONE, source != GONE); tombstone[me] = fence[i]
#ifdef BROKEN_TOUCH
  :: text[i] >= TEXT && same[i] -> skip
#else
  :: text[i] >= TEXT && same[i] -> touch(fence[i], text[i])
#endif
  :: text[i] >= TEXT && !same[i] -> store(fence[i], text[i], source != GONE)
  fi;
#ifdef BROKEN_ENTRIES
  queue = 0;
#else
  queue = queue & ~entries[i];
#endif
  settle(i)
}

inline settle(i) {
  if
  :: i == 0 && has[1] ->
     fence[0] = fence[1]; text[0] = text[1]; is_read[0] = is_read[1]; same[0] = same[1]; older[0] = older[1];
     entries[0] = entries[1];
     forget(1)
  :: else -> forget(i)
  fi
}

inline forget(i) {
  has[i] = false; fence[i] = 0; text[i] = 0; is_read[i] = false; same[i] = false; older[i] = false;
  entries[i] = 0;
  leave()
}

inline give_up() {                   /* what was read, but not written, is still in the queue */
  if :: has[0] -> forget(0) :: else fi;
  if :: has[1] -> forget(1) :: else fi;
  tombstone[me] = 0
}
