-- The lock in the database, part 2: what must be true. The event trigger asks gov.structure() after each
-- DDL statement; gov.status() shows both lists to the deploy and to the audit.

-- `vital`: without this table there is no lock, and postgres itself writes to it. The others carry the guards of
-- official accounts; a table that a Mastodon does not have needs none.
DROP FUNCTION IF EXISTS gov.guarded();
CREATE FUNCTION gov.guarded() RETURNS TABLE (name text, oid oid, vital boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT t, to_regclass('public.' || t)::oid, v
      FROM (VALUES ('users', true), ('invites', true), ('user_roles', true), ('settings', true), ('accounts', false),
                   ('identities', false), ('account_deletion_requests', false), ('account_migrations', false),
                   ('account_statuses_cleanup_policies', false)) g(t, v)
     WHERE v OR to_regclass('public.' || t) IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION gov.is_super(who oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT rolsuper FROM pg_roles WHERE oid = who
$$;

CREATE OR REPLACE FUNCTION gov.digest() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(sha256(convert_to(string_agg(
               pg_get_functiondef(p.oid) || pg_get_userbyid(p.proowner),
               E'\n' ORDER BY p.oid::regprocedure::text COLLATE "C"), 'UTF8')), 'hex')
      FROM pg_proc p WHERE p.pronamespace = to_regnamespace('gov')
$$;

-- Code of another role that would run when a superuser writes to a guarded table: functions, operators and
-- types behind its triggers, rules, defaults, constraints, policies and indexes.
CREATE OR REPLACE FUNCTION gov.foreign_code(target oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH part(classid, objid) AS (
        SELECT 'pg_class'::regclass, target
        UNION ALL SELECT 'pg_class'::regclass, indexrelid FROM pg_index WHERE indrelid = target
        UNION ALL SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = target
        UNION ALL SELECT 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = target
        UNION ALL SELECT 'pg_trigger'::regclass, oid FROM pg_trigger WHERE tgrelid = target
        UNION ALL SELECT 'pg_policy'::regclass, oid FROM pg_policy WHERE polrelid = target
        UNION ALL SELECT 'pg_rewrite'::regclass, oid FROM pg_rewrite WHERE ev_class = target
        UNION ALL SELECT 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext WHERE stxrelid = target
    ), owned(classid, objid, owner) AS (
        SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc
        UNION ALL SELECT 'pg_operator'::regclass, oid, oprowner FROM pg_operator
        UNION ALL SELECT 'pg_type'::regclass, oid, typowner FROM pg_type
        UNION ALL SELECT 'pg_opclass'::regclass, oid, opcowner FROM pg_opclass
    )
    SELECT string_agg(pg_describe_object(d.refclassid, d.refobjid, 0), ', ')
      FROM part JOIN pg_depend d USING (classid, objid)
      JOIN owned o ON (o.classid, o.objid) = (d.refclassid, d.refobjid)
     WHERE NOT gov.is_super(o.owner)
$$;

CREATE OR REPLACE FUNCTION gov.expected_triggers() RETURNS TABLE (name text, target text, definition text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT n, t, format('CREATE %sTRIGGER %s %s ON public.%s %sFOR EACH %s EXECUTE FUNCTION gov.%s()',
                        CASE WHEN f = 'accounts_person' THEN 'CONSTRAINT ' END, n, w, t,
                        CASE WHEN f = 'accounts_person' THEN 'DEFERRABLE INITIALLY DEFERRED ' END, e, f)
      FROM (VALUES
        ('gov_users_arrival', 'users', 'BEFORE INSERT', 'ROW', 'users_arrival'),
        ('gov_users_locked', 'users', 'BEFORE UPDATE', 'ROW', 'users_locked'),
        ('gov_users_check', 'users', 'AFTER INSERT OR UPDATE', 'ROW', 'users_check'),
        ('gov_users_stay', 'users', 'BEFORE DELETE', 'ROW', 'users_stay'),
        ('gov_accounts_stay', 'accounts', 'AFTER UPDATE OF moved_to_account_id, suspended_at, memorial, domain', 'ROW',
         'accounts_stay'),
        -- Accounts of other servers come by the thousand: they are not kept in a queue until the end.
        ('gov_accounts_person', 'accounts', 'AFTER INSERT OR UPDATE OF id, domain, username',
         'ROW WHEN ((new.domain IS NULL))', 'accounts_person'),
        ('gov_deletions_check', 'account_deletion_requests', 'AFTER INSERT OR UPDATE', 'ROW', 'deletions_check'),
        ('gov_migrations_check', 'account_migrations', 'AFTER INSERT OR UPDATE', 'ROW', 'migrations_check'),
        ('gov_cleanup_check', 'account_statuses_cleanup_policies', 'AFTER INSERT OR UPDATE', 'ROW', 'cleanup_check'),
        ('gov_identities_check', 'identities', 'AFTER INSERT OR UPDATE', 'ROW', 'identities_check'),
        ('gov_invites_clamp', 'invites', 'BEFORE INSERT OR UPDATE', 'ROW', 'invites_clamp'),
        ('gov_roles_clamp', 'user_roles', 'BEFORE INSERT OR UPDATE', 'ROW', 'roles_clamp'),
        ('gov_settings_check', 'settings', 'AFTER INSERT OR UPDATE', 'ROW', 'settings_check'),
        ('gov_users_truncate', 'users', 'BEFORE TRUNCATE', 'STATEMENT', 'no_truncate'),
        ('gov_invites_truncate', 'invites', 'BEFORE TRUNCATE', 'STATEMENT', 'no_truncate'),
        ('gov_roles_truncate', 'user_roles', 'BEFORE TRUNCATE', 'STATEMENT', 'no_truncate'),
        ('gov_settings_truncate', 'settings', 'BEFORE TRUNCATE', 'STATEMENT', 'no_truncate')
      ) AS v(n, t, w, e, f)
$$;

-- What DDL in this database could spoil. A row is good when observed = expected.
CREATE OR REPLACE FUNCTION gov.structure() RETURNS TABLE (id text, observed text, expected text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'trigger:' || e.name,
           coalesce((SELECT pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'A' THEN ', always' ELSE ', not always' END
                       FROM pg_trigger t WHERE t.tgrelid = g.oid AND t.tgname = e.name), 'absent'),
           e.definition || ', always'
      FROM gov.expected_triggers() e JOIN gov.guarded() g ON g.name = e.target
    UNION ALL
    SELECT 'table:' || g.name,
           coalesce((SELECT format('kind %s, owner %s, rules %s, relatives %s', c.relkind, pg_get_userbyid(c.relowner),
                        (SELECT count(*) FROM pg_rewrite WHERE ev_class = c.oid),
                        (SELECT count(*) FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)))
                       FROM pg_class c WHERE c.oid = g.oid), 'absent'),
           'kind r, owner mastodon_owner, rules 0, relatives 0'
      FROM gov.guarded() g
    UNION ALL
    SELECT 'columns', coalesce(string_agg(t || '.' || c, ', '), ''), ''
      FROM (VALUES ('users', 'email'), ('users', 'unconfirmed_email'), ('users', 'invite_id'), ('users', 'role_id'),
                   ('users', 'approved'), ('users', 'encrypted_password'), ('invites', 'max_uses'),
                   ('invites', 'expires_at'), ('user_roles', 'permissions'), ('settings', 'var'),
                   ('settings', 'value'), ('users', 'confirmed_at'), ('users', 'disabled'),
                   ('accounts', 'moved_to_account_id'), ('accounts', 'suspended_at'), ('accounts', 'domain'),
                   ('accounts', 'username'), ('accounts', 'memorial'),
                   ('account_statuses_cleanup_policies', 'enabled')) AS v(t, c)
      JOIN gov.guarded() g ON g.name = v.t
     WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = g.oid AND attname = v.c AND NOT attisdropped)
    UNION ALL
    SELECT 'foreign_code', coalesce(string_agg(g.name || ': ' || gov.foreign_code(g.oid), ', '), ''), ''
      FROM gov.guarded() g WHERE g.vital AND gov.foreign_code(g.oid) IS NOT NULL
    UNION ALL
    -- A second relation of the same name could be found first through a search_path.
    SELECT 'shadow', coalesce(string_agg(n.nspname || '.' || c.relname, ', '), ''), ''
      FROM gov.guarded() g JOIN pg_class c ON c.relname = g.name JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname <> 'public' AND NOT gov.is_super(c.relowner)
    UNION ALL
    SELECT 'privileges', coalesce(string_agg(p || ' on ' || g.name, ', '), ''), ''
      FROM gov.guarded() g, unnest(ARRAY['TRUNCATE', 'TRIGGER', 'REFERENCES', 'MAINTAIN']) p
     WHERE has_table_privilege('mastodon', g.oid, p)
    UNION ALL
    SELECT 'schema_create', coalesce(string_agg(nspname, ', '), ''), '' FROM pg_namespace
     WHERE nspname !~ '^pg_(toast_)?temp_' AND has_schema_privilege('mastodon', oid, 'CREATE')
$$;

-- What only a superuser can spoil.
CREATE OR REPLACE FUNCTION gov.surroundings() RETURNS TABLE (id text, observed text, expected text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'event_trigger',
           coalesce((SELECT format('%s, %s, %s', evtevent, evtfoid::regproc, evtenabled)
                       FROM pg_event_trigger WHERE evtname = 'gov_lock'), 'absent'),
           'ddl_command_end, gov.guard_ddl, A'
    UNION ALL
    SELECT 'functions', gov.digest(), (SELECT digest FROM gov.version ORDER BY id DESC LIMIT 1)
    UNION ALL
    SELECT 'gov_owner', coalesce(string_agg(what, ', '), ''), '' FROM (
        SELECT relname::text, relowner FROM pg_class WHERE relnamespace = to_regnamespace('gov')
        UNION ALL SELECT 'schema', nspowner FROM pg_namespace WHERE nspname = 'gov') o(what, owner)
     WHERE NOT gov.is_super(owner)
    UNION ALL
    SELECT 'gov_privileges', coalesce(string_agg(DISTINCT x, ', '), ''), '' FROM (
        SELECT format('%s %s on %s', a.grantee::regrole, a.privilege_type, c.relname), a.grantee
          FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = to_regnamespace('gov')
        UNION ALL
        SELECT format('%s %s on %s', a.grantee::regrole, a.privilege_type, p.proname), a.grantee
          FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         WHERE p.pronamespace = to_regnamespace('gov') AND NOT (a.grantee = to_regrole('mastodon_owner')
           AND p.proname IN ('invite', 'invitations', 'revoke', 'mailed', 'status', 'shut', 'hand_back', 'lockdowns',
                             'users_invited'))
        UNION ALL
        SELECT format('%s %s on schema', a.grantee::regrole, a.privilege_type), a.grantee
          FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'gov'
           AND NOT (a.grantee = to_regrole('mastodon_owner') AND a.privilege_type = 'USAGE')) v(x, grantee)
     WHERE grantee = 0 OR NOT gov.is_super(grantee)
    UNION ALL
    SELECT 'roles', coalesce(string_agg(what, ', '), ''), '' FROM (
        SELECT format('%s is superuser or may create roles, databases or replicate', rolname) FROM pg_roles
         WHERE rolname IN ('mastodon', 'mastodon_owner')
           AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
        UNION ALL
        SELECT format('%s is a member of %s', member::regrole, roleid::regrole) FROM pg_auth_members
         WHERE member IN (to_regrole('mastodon'), to_regrole('mastodon_owner'))
            OR roleid = to_regrole('mastodon_owner') AND NOT gov.is_super(member)) v(what)
    UNION ALL
    SELECT 'parameters', coalesce(string_agg(r || ' may set ' || p, ', '), ''), ''
      FROM unnest(ARRAY['mastodon', 'mastodon_owner']) r,
           unnest(ARRAY['session_replication_role', 'event_triggers']) p
     WHERE has_parameter_privilege(r, p, 'SET')
    UNION ALL
    SELECT 'role_settings', coalesce(string_agg(s, ', '), ''), '' FROM pg_db_role_setting, unnest(setconfig) s
     WHERE s ~ '^(search_path|session_replication_role|event_triggers|role)='
       AND (setrole = 0 OR setrole IN (to_regrole('mastodon'), to_regrole('mastodon_owner')))
       AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    UNION ALL
    SELECT 'temporary_tables', has_database_privilege('mastodon', current_database(), 'TEMPORARY')::text, 'false'
$$;

-- What the rows say. Rows that came before the lock, or past a trigger that was off, show here.
CREATE OR REPLACE FUNCTION gov.contents() RETURNS TABLE (id text, observed text, expected text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'everyone', coalesce((SELECT permissions::text FROM public.user_roles WHERE id = -99), '0'), '0'
    UNION ALL
    SELECT 'bypass', coalesce(string_agg(name, ', ' ORDER BY id), ''), '' FROM public.user_roles
     WHERE permissions & 2097152 <> 0
    UNION ALL
    SELECT 'require_2fa', coalesce(string_agg(name || '(' || id || ')', ', ' ORDER BY id), ''), '' FROM public.user_roles r
     WHERE gov.setting_of('require_2fa') = 'true' AND to_jsonb(r) ->> 'require_2fa' = 'false'
    UNION ALL
    SELECT 'mode', CASE WHEN gov.is_closed(value) THEN 'none' ELSE coalesce(value, 'null') END, 'none'
      FROM (SELECT (SELECT value FROM public.settings WHERE var = 'registrations_mode') AS value,
                   EXISTS (SELECT FROM public.settings WHERE var = 'registrations_mode') AS present) s
     WHERE present
    UNION ALL
    SELECT 'invites', count(*)::text, '0' FROM public.invites i
     WHERE (i.expires_at IS NULL OR i.expires_at > now() AT TIME ZONE 'UTC')
       AND (i.max_uses IS NULL OR i.uses < i.max_uses)
       AND NOT EXISTS (SELECT FROM gov.invitation l WHERE l.invite_id = i.id AND l.revoked_at IS NULL
                          AND l.expires_at AT TIME ZONE 'UTC' >= i.expires_at AND i.max_uses = 1)
    UNION ALL
    SELECT 'addresses', count(*)::text, '0' FROM public.users u
     WHERE NOT gov.is_staff(u.email) OR (u.unconfirmed_email <> '' AND NOT gov.is_staff(u.unconfirmed_email))
$$;

-- Everything the running database says about the lock, as one JSON document.
CREATE OR REPLACE FUNCTION gov.status() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
    WITH checks AS (
        SELECT * FROM gov.structure() UNION ALL SELECT * FROM gov.surroundings() UNION ALL SELECT * FROM gov.contents()
    ), newest AS (SELECT * FROM gov.version ORDER BY id DESC LIMIT 1)
    SELECT jsonb_build_object(
        'installed', true,
        'version', (SELECT version FROM newest),
        'source', (SELECT source FROM newest),
        'digest', gov.digest(),
        'ok', (SELECT bool_and(observed IS NOT DISTINCT FROM expected) FROM checks),
        'failed', (SELECT coalesce(jsonb_agg(id ORDER BY id), '[]') FROM checks WHERE observed IS DISTINCT FROM expected),
        'checks', (SELECT jsonb_object_agg(id, jsonb_build_object('observed', observed, 'expected', expected,
                              'ok', observed IS NOT DISTINCT FROM expected)) FROM checks),
        'domains', (SELECT coalesce(jsonb_agg(domain ORDER BY domain), '[]') FROM gov.staff_domain),
        'organisations', (SELECT coalesce(jsonb_object_agg(o.id, jsonb_build_object('state', o.state, 'domains',
                              (SELECT coalesce(jsonb_agg(d.domain ORDER BY d.domain), '[]') FROM gov.staff_domain d
                                WHERE d.organisation = o.id))), '{}') FROM gov.organisation o),
        'settings', (SELECT coalesce(jsonb_object_agg(name, value), '{}') FROM gov.setting),
        'deployment', (SELECT jsonb_build_object('local_domain', local_domain, 'web_domain', web_domain,
                           'first_at', first_at) FROM gov.deployment),
        'open_invitations', (SELECT count(*) FROM gov.invitation
                              WHERE used_at IS NULL AND revoked_at IS NULL AND expires_at > now()))
$$;
