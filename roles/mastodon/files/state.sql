-- What the database says of the application: three documents of JSON, besides that of lock_status.sql. Runs as postgres, before and after there are tables.
SELECT json_build_object('tables', count(*)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'public' AND c.relkind = 'r';
SELECT to_regclass('public.schema_migrations') IS NOT NULL AND to_regclass('public.users') IS NOT NULL AS there \gset
\if :there
SELECT json_build_object(
  'keypairs', to_regclass('public.keypairs') IS NOT NULL,
  'versions', (SELECT json_agg(version) FROM public.schema_migrations),
  'status_host', (SELECT split_part(uri, '/', 3) FROM public.statuses WHERE local AND uri IS NOT NULL LIMIT 1),
  'owner', (SELECT json_build_object('signed_in', u.current_sign_in_at IS NOT NULL) FROM public.users u
             JOIN public.accounts a ON a.id = u.account_id
            WHERE a.domain IS NULL AND lower(a.username) = lower(:'owner')));
\else
SELECT '{}';
\endif
SELECT to_regprocedure('gov.without_organisation(jsonb)') IS NOT NULL AS locked \gset
\if :locked
SELECT gov.without_organisation(:'wanted');
\else
SELECT '{}';
\endif
