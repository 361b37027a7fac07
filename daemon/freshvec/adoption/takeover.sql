-- keys: the next keys of the source
SELECT {d_key_texts} FROM {source} AS d {beyond} ORDER BY {d_keys} LIMIT %(limit)s

-- fence: the order of rows about to be read
SELECT nextval('freshvec.fence')
