-- estimated_rows: how many rows the statistics say a table and its partitions have; -1 where never analysed
WITH RECURSIVE family AS (
  SELECT %(oid)s::oid AS oid
  UNION
  SELECT inhrelid FROM pg_inherits JOIN family ON inhparent = family.oid
)
SELECT coalesce(sum(reltuples) FILTER (WHERE reltuples >= 0), -1)::bigint
  FROM pg_class JOIN family USING (oid) WHERE relkind = 'r'

-- sample: texts spread evenly over a share of the table's pages, as many as asked for where there are as many
SELECT freshvec_text
  FROM (SELECT left(freshvec_text, {max_characters}) AS freshvec_text,
               row_number() OVER () * %(rows)s AS place, count(*) OVER () AS found
          FROM (SELECT {text} AS freshvec_text FROM {source}
                TABLESAMPLE SYSTEM (%(percent)s) REPEATABLE (0)) AS d
         WHERE freshvec_text IS NOT NULL) AS d
 WHERE place / found > (place - %(rows)s) / found
