-- probe: let Postgres say what the text depends on; the view is never kept
CREATE TEMPORARY VIEW freshvec_probe AS SELECT {text} AS freshvec_text FROM {source}

-- depends: the columns of the table that the text reads (0: the whole row), and other relations it reads
SELECT d.refobjid = %(oid)s::oid, d.refobjsubid::int, d.refobjid::regclass::text
  FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
 WHERE r.ev_class = 'pg_temp.freshvec_probe'::regclass AND d.refclassid = 'pg_class'::regclass
   AND d.refobjid <> r.ev_class

-- named_types: types that the text names
SELECT d.refobjid::bigint
  FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
 WHERE r.ev_class = 'pg_temp.freshvec_probe'::regclass AND d.refclassid = 'pg_type'::regclass

-- types: those of columns and those that are named, with all that they are made of; without Postgres's own
WITH RECURSIVE types AS (
  SELECT oid FROM (SELECT unnest(%(named)s::oid[])
                   UNION SELECT atttypid FROM pg_attribute
                          WHERE attrelid = %(oid)s::oid AND attname = ANY (%(columns)s::text[])) AS used (oid)
   WHERE oid >= 16384
  UNION
  SELECT part.oid FROM types JOIN pg_type t ON t.oid = types.oid CROSS JOIN LATERAL (
         SELECT t.typbasetype UNION ALL SELECT t.typelem
         UNION ALL SELECT rngsubtype FROM pg_range WHERE t.oid IN (rngtypid, rngmultitypid)
         UNION ALL SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0) AS part (oid)
   WHERE part.oid >= 16384
)
SELECT oid::bigint FROM types ORDER BY oid

-- tree: the text as Postgres parsed it
SELECT ev_action::text FROM pg_rewrite WHERE ev_class = 'pg_temp.freshvec_probe'::regclass

-- functions: what is known of functions and of the operators' functions
SELECT p.oid::bigint, n.nspname::text, p.proname::text, p.pronargs::int, p.provolatile::text, p.proretset,
       o.rolsuper OR o.rolname = current_user
         OR NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
       o.rolname::text
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner
 WHERE p.oid = ANY (%(functions)s::oid[])
    OR p.oid IN (SELECT oprcode FROM pg_operator WHERE oid = ANY (%(operators)s::oid[]))

-- generated: the columns that virtual generated columns are made of
SELECT a.attnum::int, d.refobjsubid::int
  FROM pg_attribute a
  JOIN pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
  JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = ad.oid
                  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid
 WHERE a.attrelid = %(oid)s::oid AND a.attgenerated = 'v' AND d.refobjsubid <> a.attnum
