-- What the database says of the application: whether it is there, then two documents of JSON, besides that of lock_status.sql. Runs as postgres, before and after there are tables.
SELECT count(*) > 0 AS made FROM pg_database WHERE datname = 'mastodon_production' \gset
SELECT json_build_object('made', :'made'::boolean);
\if :made
\connect mastodon_production
\else
\quit
\endif
SELECT to_regclass('public.schema_migrations') IS NOT NULL AND to_regclass('public.users') IS NOT NULL AS there \gset
\if :there
SELECT json_build_object(
  'people', EXISTS (SELECT FROM public.users),
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
