-- edition: what is noted of an edition
SELECT is_shown, is_leaving, kept_until, begun_at FROM freshvec.edition WHERE name = %(name)s
