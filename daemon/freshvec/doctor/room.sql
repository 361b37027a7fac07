-- data_directory: where the server's files are, for who may know it
SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('data_directory') END

-- database_size: of this database
SELECT pg_size_pretty(pg_database_size(current_database()))
