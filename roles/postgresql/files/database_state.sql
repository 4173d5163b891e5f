-- What database.sql would make, as one line of JSON; an empty answer means the server is not up yet.
SELECT json_build_object(
  'roles', (SELECT json_object_agg(rolname, rolcanlogin AND NOT (rolsuper OR rolcreatedb OR rolcreaterole
             OR rolreplication OR rolbypassrls)) FROM pg_roles WHERE rolname IN ('mastodon', 'mastodon_owner')),
  'database_owner', (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'mastodon_production'),
  'public_may_connect', (SELECT has_database_privilege('public', oid, 'CONNECT') FROM pg_database
             WHERE datname = 'mastodon_production'),
  'checksums', current_setting('data_checksums') = 'on');
