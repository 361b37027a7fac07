-- is_made: whether there may be editions
SELECT to_regclass('freshvec.edition') IS NOT NULL

-- known: every edition of some syncs
SELECT sync, name, number, declared, target, file, is_shown, is_leaving OR coalesce(kept_until < now(), false)
  FROM freshvec.edition WHERE sync = ANY (%(names)s::text[]) ORDER BY sync, number

-- applied: the definitions of those of some syncs that have vectors
SELECT name, definition FROM freshvec.sync
 WHERE name = ANY (%(names)s::text[]) AND rows_embedded > 0

-- replace: an edition is made anew in its place
UPDATE freshvec.edition SET declared = %(declared)s WHERE name = %(name)s

-- edition: of which sync another is an edition, its view, and whether that shows it
SELECT sync, view[1], view[2], is_shown FROM freshvec.edition WHERE name = %(name)s
