-- extent: pages, bytes and number of a table and all below it; rows by the density that the statistics tell,
-- NULL where one that has pages has none
WITH RECURSIVE family AS (
  SELECT %(oid)s::oid AS oid
  UNION
  SELECT inhrelid FROM pg_inherits JOIN family ON inhparent = family.oid
), member AS (
  SELECT c.oid, c.reltuples, c.relpages, coalesce(pg_relation_size(c.oid), 0) / 8192 AS pages
    FROM family JOIN pg_class c USING (oid) WHERE c.relkind = 'r'
)
SELECT coalesce(sum(pages), 0)::bigint, coalesce(sum(pg_total_relation_size(oid)), 0)::bigint, count(*)::int,
       CASE WHEN bool_or(pages > 0 AND (reltuples <= 0 OR relpages = 0)) THEN NULL
            ELSE coalesce(sum(CASE WHEN pages > 0 THEN reltuples / nullif(relpages, 0) * pages END), 0)
       END::float8
  FROM member

-- count: rows in a share of the pages
SELECT count(*) FROM {table} TABLESAMPLE {share}
