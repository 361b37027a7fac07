-- sample: texts spread evenly over a share of the table's pages, as many as asked for where there are as many
SELECT freshvec_text
  FROM (SELECT left(freshvec_text, {max_characters}) AS freshvec_text,
               row_number() OVER () * %(rows)s AS place, count(*) OVER () AS found
          FROM (SELECT {shown} AS freshvec_text
                  FROM (SELECT {rendered} AS freshvec_rendered
                          FROM {source} TABLESAMPLE {share} OFFSET 0) AS d
               ) AS d
         WHERE freshvec_text IS NOT NULL) AS d
 WHERE place / found > (place - %(rows)s) / found
