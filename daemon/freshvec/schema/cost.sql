-- within: a plan looks at some rows and shall not load the database
SET LOCAL statement_timeout = '10s'

-- sample: the beginnings of texts of some rows spread over the table, and their lengths
SELECT left(d.freshvec_text, {characters}), length(d.freshvec_text), false
  FROM (SELECT {text} AS freshvec_text FROM {source} TABLESAMPLE {share} LIMIT {rows} OFFSET 0) AS d

-- sample_with_target: the same, and whether the target has a vector of that very text and model
SELECT left(d.freshvec_text, {characters}), length(d.freshvec_text), coalesce({unchanged}, false)
  FROM (SELECT d.*, {hash} AS freshvec_hash
          FROM (SELECT {keys}, {text} AS freshvec_text
                  FROM {source} TABLESAMPLE {share} LIMIT {rows}) AS d
         OFFSET 0) AS d
  LEFT JOIN {target} AS t ON {d_is_t}
 WHERE {is_trusted}
