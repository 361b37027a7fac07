-- is_trusted: true where the target's tables, as the query names them, are tables whose owner gains nothing
-- by our reading them: one that has this role's rights anyway, or those of the queue's owner
-- (target/trust.sql); else an error, which can say so in a name alone
(SELECT bool_and(CASE WHEN c.relkind = 'r'
                       AND (pg_has_role(c.relowner, current_user, 'MEMBER')
                            OR coalesce(pg_has_role(c.relowner, q.relowner, 'MEMBER'), false)) THEN true
                      ELSE quote_ident(left(c.relname || ', other than ' || pg_get_userbyid(c.relowner), 55)
                                       || '''s')::regclass IS NULL END)
   FROM pg_class AS c LEFT JOIN pg_class AS q ON q.oid = to_regclass({queue_name})
  WHERE c.oid IN ({table_oids}))
