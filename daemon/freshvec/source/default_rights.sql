-- take_back: what default privileges gave others. Who may use what is granted that later
DO $freshvec$
DECLARE
  revoking text;
BEGIN
  FOR revoking IN
    SELECT DISTINCT 'REVOKE ALL ON ' || c.oid::regclass || ' FROM '
           || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
      FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
     WHERE c.oid IN ({oids}) AND a.grantee <> c.relowner
  LOOP
    EXECUTE revoking;
  END LOOP;
END $freshvec$
