-- last: the last key of the next range, which holds so many source rows
SELECT {d_key_texts} FROM {source} AS d {range} ORDER BY {d_keys} OFFSET %(limit)s - 1 LIMIT 1

-- last_of_both: the same where the target has far more rows than the source: it holds at most so many of each
SELECT {d_key_texts}
  FROM ((SELECT {keys} FROM {source} {range} ORDER BY {keys} OFFSET %(limit)s - 1 LIMIT 1)
        UNION ALL
        (SELECT {keys} FROM {target} {range} ORDER BY {keys} OFFSET %(limit)s - 1 LIMIT 1)) AS d
 WHERE {is_trusted} ORDER BY {d_keys} LIMIT 1

-- range: keys of one range whose source and target rows do not fit, and what is wrong. The text is rendered
-- once, and both tables are passed in the order of their keys.
SELECT {d_or_t_key_texts}, f.problem
  FROM (SELECT d.*, {hash} AS freshvec_hash
          FROM (SELECT d.*, {shown} AS freshvec_text
                  FROM (SELECT {keys}, true AS freshvec_is_there, {rendered} AS freshvec_rendered
                          FROM {source} {range} OFFSET 0) AS d
                OFFSET 0) AS d
         OFFSET 0) AS d
  FULL JOIN (SELECT {keys}, content_hash, fingerprint, encode_error,
                    {t_has_its_vectors} AS freshvec_embedded, {t_is_embedded} AS freshvec_written
               FROM {target} AS t {range} OFFSET 0) AS t ON {d_is_t}
 CROSS JOIN LATERAL (
   SELECT CASE WHEN d.freshvec_is_there IS NULL THEN 'orphaned'
               WHEN d.freshvec_hash IS NULL
               THEN CASE WHEN t.freshvec_embedded OR {d_keeps_a_vector} THEN 'different' END
               WHEN t.freshvec_embedded AND t.content_hash = d.freshvec_hash
                    AND t.fingerprint = %(fingerprint)s AND t.encode_error IS NULL THEN NULL
               WHEN t.freshvec_embedded IS NULL THEN 'missing'
               WHEN t.encode_error IS NOT NULL THEN 'failed'
               WHEN t.fingerprint <> %(fingerprint)s THEN 'other model'
               WHEN t.content_hash IS DISTINCT FROM d.freshvec_hash OR t.freshvec_written THEN 'different'
               ELSE 'missing' END AS problem) AS f
 WHERE {is_trusted} AND f.problem IS NOT NULL LIMIT %(most)s

-- count: how many source rows a range has that is not known to hold as many as were asked for
SELECT count(*) FROM {source} {range}

-- keys: the keys of a range in which a row's text cannot be read, and whether source and target have them
SELECT {d_or_t_key_texts}, d.freshvec_is_there IS NOT NULL, t.freshvec_is_held IS NOT NULL
  FROM (SELECT {keys}, true AS freshvec_is_there FROM {source} {range} OFFSET 0) AS d
  FULL JOIN (SELECT {keys}, true AS freshvec_is_held FROM {target} {range} OFFSET 0) AS t ON {d_is_t}
 WHERE {is_trusted}

-- make_known: a row with a wrong vector is fresh to who compares hashes, so it loses its hash
UPDATE {target} AS t SET content_hash = NULL
  FROM unnest({key_params}, %(hashes)s::bytea[]) AS k ({k}, content_hash)
 WHERE {t_is_k} AND t.content_hash = k.content_hash

-- make_passages_known: the same of a row's passages
UPDATE {vectors} AS c SET content_hash = NULL FROM {given_keys}
  JOIN {target} AS t ON {t_is_k} WHERE {c_is_t} AND t.content_hash IS NULL

-- lock: among those who write
SELECT pg_advisory_xact_lock_shared(%(class)s, hashtext({sync_name}))

-- ring: wake the worker
SELECT freshvec.ring({sync_name})
