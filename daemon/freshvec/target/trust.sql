-- lock: the tables that are looked at stay what they are until the transaction ends
LOCK TABLE {tables} IN ROW EXCLUSIVE MODE

-- untrusted: of these tables one that is none, or whose owner has neither this role's rights nor those of
-- whoever owns the queue, which lies where nobody else may make anything
SELECT t.name, c.relkind <> 'r', quote_ident(pg_get_userbyid(c.relowner)),
       quote_ident(coalesce(pg_get_userbyid(q.relowner), current_user))
  FROM unnest(%(tables)s::text[]) AS t (name) JOIN pg_class AS c ON c.oid = to_regclass(t.name)
  LEFT JOIN pg_class AS q ON q.oid = to_regclass(%(queue)s)
 WHERE c.relkind <> 'r'
    OR NOT pg_has_role(c.relowner, current_user, 'MEMBER')
   AND NOT coalesce(pg_has_role(c.relowner, q.relowner, 'MEMBER'), false)
 LIMIT 1
