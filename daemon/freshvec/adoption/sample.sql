-- draw: keys of rows with a vector, from pages of the table chosen at random
SELECT {d_key_texts} FROM {source} AS d TABLESAMPLE SYSTEM (%(percent)s::float4)
 WHERE EXISTS (SELECT FROM {origin} AS o WHERE {o_is_d} AND o.{column} IS NOT NULL) AND {wanted}
 ORDER BY random() LIMIT %(rows)s

-- share: of the rows of some pages from all over the table, how many have a vector
SELECT count(*), count(*) FILTER (WHERE d.has)
  FROM (SELECT EXISTS (SELECT FROM {origin} AS o WHERE {o_is_d} AND o.{column} IS NOT NULL) AS has
          FROM {source} AS d TABLESAMPLE SYSTEM (%(percent)s::float4)) AS d
