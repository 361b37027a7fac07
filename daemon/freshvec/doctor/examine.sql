-- within: a look at a database that is in trouble shall not add to it
SELECT set_config('statement_timeout', '10s', false), set_config('lock_timeout', '1s', false)

-- where: the database, and who looks at it
SELECT current_database(), current_user::text
